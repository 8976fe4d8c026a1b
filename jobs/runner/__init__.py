"""One attempt of a job as a pipeline: plan, launch, supervise, settle, clean up."""
