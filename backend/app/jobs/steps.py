"""Jobs that consist of independent steps."""

from collections.abc import Awaitable, Callable, Mapping

from app.core.job_states import StepsFailed


async def run_steps(steps: Mapping[str, Callable[[], Awaitable[object]]]) -> int:
    """Run all steps, also after a failure; return the sum of their numbers of rows.

    Raises StepsFailed.
    """
    rows, errors = 0, dict[str, Exception]()
    for name, step in steps.items():
        try:
            done = await step()
        except Exception as error:  # noqa: BLE001 - raised below
            errors[name] = error
        else:
            rows += done if isinstance(done, int) else 0
    if errors:
        raise StepsFailed(errors)
    return rows
