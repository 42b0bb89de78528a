"""Names in a configuration: of files, models and tasks, which carry the thing itself where Python gave that."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ValidatorFunctionWrapHandler, WrapValidator

from policyopt.carried import Carried
from policyopt.data import places
from policyopt.models import loaded


def _from_anywhere(name: str) -> str:
    """Names of files and folders that are there from the root, so that a run goes on from another directory too."""
    is_path = "/" in name or name.endswith(".py")
    return str(Path(name).absolute()) if is_path and Path(name).exists() else name


def _model(model: Any, text: ValidatorFunctionWrapHandler) -> str:
    found = loaded.named(model)
    return found if isinstance(found, Carried) else _from_anywhere(text(found))


def _rows(argument: str) -> WrapValidator:
    def validate(spec: Any, text: ValidatorFunctionWrapHandler) -> str:
        found = places.written(spec, argument)
        return found if isinstance(found, Carried) else places.absolute(text(found))

    return WrapValidator(validate)


Name = Annotated[str, BeforeValidator(lambda x: str(x) if isinstance(x, Path) else x)]
"""Text; a path does as well."""
Place = Annotated[Name, AfterValidator(_from_anywhere)]
"""The name of something that may be a file or a folder."""
ModelName = Annotated[Name, WrapValidator(_model)]
"""A model: a folder, a hub id; in Python also a :class:`~policyopt.models.load.Policy`, or a pair (model, tokenizer)."""
TaskName = Annotated[str, _rows("task")]
"""Where questions come from; a list of sources, or a mapping of sources to weights, is a mixture; in Python also the rows
themselves (:func:`policyopt.data.places.written`)."""
EvalTaskName = Annotated[str, _rows("eval_task")]
"""The same for questions to measure on."""
