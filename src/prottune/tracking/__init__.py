"""One MLflow run per pipeline run: settings, points and reports go in; nothing that fails here stops a stage.

Where runs are kept is decided by the environment alone, once, at the edge:

    MLFLOW_TRACKING_URI    `sqlite:///...` or an http(s) server; unset or empty: nothing is tracked
    MLFLOW_RUN_ID          the run to write to; wins over everything (the KFP plugin sets it)
    PROTTUNE_PIPELINE_RUN  name of the pipeline run; its MLflow run carries it as a tag and is found by it
    PROTTUNE_UNSENT        where points wait that MLflow could not take before a step ended (unsent.py)
    PROTTUNE_FAILURE_FILE  where a failing step leaves its one line for the program that started it

With sqlite, artifacts lie in `mlartifacts` beside the database; a server decides for itself.
"""
