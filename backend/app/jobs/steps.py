"""Jobs that consist of independent steps."""

from collections.abc import Awaitable, Callable, Mapping


class StepsFailed(Exception):
    """Some steps of a job failed; the others are done."""

    def __init__(self, errors: Mapping[str, Exception]) -> None:
        super().__init__(
            ", ".join(f"{name}: {type(error).__name__}" for name, error in errors.items())
        )
        self.errors = errors
        """The error of each failed step, by the name of the step."""


async def run_steps(steps: Mapping[str, Callable[[], Awaitable[object]]]) -> None:
    """Run all steps, also after a failure. Raises StepsFailed."""
    errors: dict[str, Exception] = {}
    for name, step in steps.items():
        try:
            await step()
        except Exception as error:  # noqa: BLE001 - raised below
            errors[name] = error
    if errors:
        raise StepsFailed(errors)
