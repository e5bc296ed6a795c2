"""The steps in which a run ends: held, nothing new, and the one that always comes last."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Markdown, Output, PipelineTaskFinalStatus

from components import LIGHT_IMAGE


@dsl.component(base_image=LIGHT_IMAGE, install_kfp_package=False)
def hold(report: Input[Dataset], settings: str, reasons: str, note: Output[Markdown]) -> None:
    """Keep the champion that is, and say why the new model was not promoted; `settings` is their digest."""
    from pathlib import Path

    from prottune.registration.news import tags_of_hold
    from prottune.tracking.step import step

    with step("hold") as tracker:
        tracker.tags(tags_of_hold(Path(report.path), settings))
    Path(note.path).write_text(f"# Held: the new model was not promoted\n\n{reasons}\n")


@dsl.component(base_image=LIGHT_IMAGE, install_kfp_package=False)
def stop_early(note: Output[Markdown]) -> None:
    """End the run: data, settings and code are those of a model that serves, was rolled back, or was held."""
    from pathlib import Path

    from prottune.tracking.step import step

    with step("stop_early") as tracker:
        tracker.tags({"prottune.decision": "same"})
    known = (
        "the champion, of a model that was rolled back, or of one that the gate held against this champion"
    )
    Path(note.path).write_text(f"# Nothing new\n\nData, settings and code are those of {known}.\n")


@dsl.component(base_image=LIGHT_IMAGE, install_kfp_package=False)
def finish(status: PipelineTaskFinalStatus) -> None:
    """Close the MLflow run as the pipeline ended; no TrainJob of a step that was killed stays on the GPUs."""
    from prottune.tracking.step import close_run, failure_told
    from prottune.training.launching import take_away_what_is_left

    take_away_what_is_left()
    with failure_told("finish"):
        if status.state == "SUCCEEDED":
            close_run("FINISHED")
        else:
            close_run("KILLED" if status.state == "CANCELLED" else "FAILED")
