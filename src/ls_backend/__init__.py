"""The Label Studio ML backend; `service` has its parts, `app` its endpoints, `predict` the way to an answer."""
