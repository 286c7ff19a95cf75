"""Labeling setups: what is shown, and which control answers go to."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ls_backend.errors import RequestError
from ls_backend.regions.label_config import ObjectTag, parse_label_config

IMAGE = '<Image name="i" value="$image"/>'
LABELS = '<Label value="Cell"/><Label value="Dirt"/>'


def view(*tags):
    return parse_label_config(f"<View>{''.join(tags)}</View>")


def control(config, name):
    (found,) = (each for each in config.controls if each.name == name)
    return found


def test_images_stacks_and_videos():
    config = view(
        IMAGE,
        '<Image name="s" valueList="$frames"/>',
        '<Video name="v" value="$clip" frameRate="25"/>',
        '<Video name="w" value="$clip" framerate="$fps"/>',
        '<Video name="x" value="$clip" frameRate="0.04"/>',
        '<Text name="t" value="$text"/>',
    )
    assert config.objects == (
        ObjectTag("i", "image", "image"),
        ObjectTag("s", "stack", "frames"),
        ObjectTag("v", "video", "clip", 25),
        ObjectTag("w", "video", "clip", 24, "fps"),
        ObjectTag("x", "video", "clip", 25),
    )
    assert config.object("s").kind == "stack"
    with pytest.raises(RequestError, match="no <Image> or <Video> with the name t"):
        config.object("t")


def test_controls_with_labels_of_their_own():
    config = view(
        IMAGE,
        f'<KeyPointLabels name="k" toName="i" smart="true">{LABELS}</KeyPointLabels>',
        '<BrushLabels name="b"><View><Label value="Cell" alias="C"/></View></BrushLabels>',
    )
    assert control(config, "k").labels == ("Cell", "Dirt")
    assert control(config, "b").labels == ("C",)  # results carry the alias
    assert control(config, "b").to_name == "i"  # the only one there is


def test_labels_beside():
    config = view(IMAGE, '<Brush name="b" toName="i"/>', f'<Labels name="l" toName="i">{LABELS}</Labels>')
    control = config.answer(config.object("i"), "Dirt")
    assert (control.name, control.labels, control.labels_from) == ("b", ("Cell", "Dirt"), "l")


@pytest.mark.parametrize(
    ("tags", "label", "name"),
    [
        ("RectangleLabels PolygonLabels BrushLabels BitmaskLabels", "Cell", "BitmaskLabels"),
        ("RectangleLabels PolygonLabels BrushLabels", "Cell", "BrushLabels"),
        ("KeyPointLabels RectangleLabels PolygonLabels", None, "PolygonLabels"),
        ("KeyPointLabels RectangleLabels", "Cell", "RectangleLabels"),
    ],
)
def test_answers_go_where_most_of_a_mask_is_kept(tags, label, name):
    config = view(IMAGE, *(f'<{tag} name="{tag}" toName="i">{LABELS}</{tag}>' for tag in tags.split()))
    assert config.answer(config.object("i"), label).name == name


def test_answers_go_where_the_label_is():
    config = view(
        IMAGE,
        '<BrushLabels name="b" toName="i"><Label value="Cell"/></BrushLabels>',
        '<PolygonLabels name="p" toName="i"><Label value="Dirt"/></PolygonLabels>',
        '<PolygonLabels name="d" toName="other" value="$labels"/>',
    )
    tag = config.object("i")
    assert config.answer(tag, "Dirt").name == "p"
    with pytest.raises(RequestError, match='add <Label value="Ash"/> to b'):
        config.answer(tag, "Ash")


def test_labels_that_come_with_the_tasks():
    config = view(IMAGE, '<BrushLabels name="b" toName="i" value="$labels"/>')
    assert config.answer(config.object("i"), "anything").name == "b"


@pytest.mark.parametrize(
    ("tag", "advice"),
    [
        (IMAGE, '<BrushLabels name="brush" toName="i">'),
        ('<Video name="i" value="$v"/>', '<VideoRectangle name="box" toName="i"/>'),
    ],
)
def test_nowhere_to_answer(tag, advice):
    config = view(tag, f'<KeyPointLabels name="k" toName="i" smart="true">{LABELS}</KeyPointLabels>')
    with pytest.raises(RequestError, match="no control for masks on i: add") as caught:
        config.answer(config.object("i"), "Cell")
    assert advice in str(caught.value)


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("", "not well-formed"),
        ("<View>", "not well-formed"),
        ("<View>\ud800</View>", "not well-formed"),
        ("<View><Text name='t' value='$t'/></View>", "needs an <Image> or a <Video>"),
        ('<!DOCTYPE v [<!ENTITY a "b">]><View>&a;</View>', "DOCTYPE"),
        ('<!DOCTYPE v SYSTEM "file:///etc/passwd"><View/>', "DOCTYPE"),
    ],
)
def test_bad_setups(xml, message):
    with pytest.raises(RequestError, match=message):
        parse_label_config(xml)


@given(st.text(st.sampled_from("<>/=\"'& \nVieImagnamevalu$!-[]?"), max_size=60))
def test_any_text_is_read_or_refused(text):
    try:
        parse_label_config(text)
    except RequestError:
        return
    assert "Image" in text


def test_a_setup_that_is_nested_a_thousandfold_holds_nobody_up():
    count = 8_000
    tags = "".join(f'<Labels name="n{i}" toName="i"><Label value="l{i}"/>' for i in range(count))
    began = time.perf_counter()
    config = view(IMAGE, tags, "</Labels>" * count)
    assert time.perf_counter() - began < 2
    assert control(config, f"n{count - 1}").labels == (f"l{count - 1}",)


def test_a_setup_without_end_is_refused():
    with pytest.raises(RequestError, match="longer than"):
        view(IMAGE, " " * 2**20)
