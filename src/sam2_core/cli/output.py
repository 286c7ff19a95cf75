"""Where `sam2 segment` writes: OUT, and beside it the session of a run that has not ended.

Nothing is touched before the input, the prompts and the model have been found good; what is replaced comes back if
nothing was done, and what was done stays for --resume.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam2_core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sam2_core.volume.session import Session
    from sam2_core.volume.volume import Volume


class Output:
    """The output of one run; made by `prepare`."""

    def __init__(self, target: Path, settings: dict[str, Any]) -> None:
        self.target = target
        self.directory = target.with_name(target.name + ".session")
        self._settings = settings
        self.kept = False

    @property
    def _mark(self) -> Path:
        """A file that is there until the run has ended."""
        return self.directory / "unfinished"

    @property
    def _replaced(self) -> Path:
        """Where an output that is being replaced waits."""
        return self.target.with_name(f".{self.target.name}.replaced")

    @classmethod
    def prepare(cls, out: Path, volume: Volume, settings: dict[str, Any], *, overwrite: bool, resume: bool) -> Output:
        """Check that the output can be begun, or gone on with; nothing is written.

        Raises
        ------
        InputError
            If it exists, or there is nothing to resume, or it was begun with other settings.
        """
        from sam2_core.volume.labels import is_label_volume, label_path
        from sam2_core.volume.session_settings import FILE, Settings

        if overwrite and resume:
            raise InputError("--overwrite begins anew and --resume goes on: give one of them")
        target = label_path(volume, out)
        if volume.path is not None and target.absolute() == volume.path.absolute():
            raise InputError(f"{target} is the input: choose another output")
        output = cls(target, settings)
        begun = output._mark.exists()
        if resume:
            if not begun or not (output.directory / FILE).exists():
                state = "is complete" if target.exists() else "was not begun"
                raise InputError(f"{target} {state}, there is nothing to resume: run without --resume")
            before = Settings.load(output.directory).extra or {}
            for name in settings:
                if before.get(name) != settings[name]:
                    raise InputError(
                        f"{target} was begun with another {name}: give the same to --resume, or --overwrite it"
                    )
            output.kept = True
            return output
        if begun and not overwrite:
            raise InputError(f"{target} was begun and not ended: go on with --resume, or begin anew with --overwrite")
        if target.exists() and not overwrite:
            raise InputError(f"{target} exists: choose another output, or give --overwrite")
        if target.exists() and not is_label_volume(target):
            raise InputError(f"{target} is no label volume and is not overwritten: choose another output")
        return output

    @contextmanager
    def session(self, resume: bool, predictor: Any, volume: Volume, **options: Any) -> Iterator[Session]:
        """The session of the run; if the block fails before anything was done, all is put back."""
        from sam2_core.volume.files import disk_errors, remove
        from sam2_core.volume.session import Session

        if resume:
            with Session.open(self.directory, image=volume, predictor=predictor) as session:
                yield session
            return
        touched = False
        try:
            with disk_errors(self.target):
                if self._mark.exists():
                    touched = True
                    remove(self.target)  # of a run that did not end; what it replaced still waits
                elif self.target.exists():
                    remove(self._replaced)
                    self.target.rename(self._replaced)
                touched = True
                if self.directory.exists():
                    remove(self.directory)
                self.directory.mkdir(parents=True)
                self._mark.touch()
            settings = self._settings
            with Session.create(
                self.directory,
                volume,
                level=settings["level"],
                model=settings["model"],
                image_size=settings["image-size"],
                labels=self.target,
                predictor=predictor,
                extra=settings,
                **options,
            ) as session:
                yield session
        except BaseException:
            if touched and not self.kept:
                for path in (self.directory, self.target):
                    if path.exists():
                        remove(path)
                if self._replaced.exists():
                    self._replaced.rename(self.target)
            raise

    def finished(self, session: Session) -> bool:
        """Whether the run ended, but was killed before it could tidy up."""
        return any(entry.kind == "run" for entry in session.history.done)

    def stopped(self) -> str:
        """What to tell a user who stopped the run."""
        if self.kept:
            return "sam2: stopped; go on with the same command and --resume"
        return "sam2: stopped before the first frame was done; nothing was written"

    @staticmethod
    def explained(error: Exception) -> InputError:
        """An error that came after the first frame, with what to do about what was done before it."""
        return InputError(f"{error}; what is done is kept: go on with the same command and --resume")

    def finish(self, keep_session: bool) -> None:
        """Tidy up after a run that has ended."""
        from sam2_core.volume.files import remove

        self._mark.unlink()
        remove(self._replaced)
        if not keep_session:
            remove(self.directory)
