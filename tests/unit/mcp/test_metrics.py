"""Figures over the times of jobs."""

import pytest

from jobs.metrics import job_metrics
from tests.unit.jobs.support import job


def test_without_jobs_everything_is_nothing():
    figures = job_metrics([job("j1")], now=5.0)
    assert (figures.average_seconds, figures.parallelism) == (0.0, 0.0)


def test_jobs_one_after_the_other_are_one_at_a_time_whatever_lay_between():
    jobs = [job("j1", started_at=0.0, ended_at=10.0), job("j2", started_at=100.0, ended_at=120.0)]
    figures = job_metrics(jobs, now=500.0)
    assert (figures.average_seconds, figures.parallelism) == (15.0, 1.0)


def test_jobs_side_by_side_are_counted_while_any_works():
    jobs = [
        job("j1", started_at=0.0, ended_at=10.0),
        job("j2", started_at=5.0),
        job("j3", started_at=2.0, ended_at=4.0),
    ]
    figures = job_metrics(jobs, now=15.0)
    assert figures.average_seconds == 6.0
    assert figures.parallelism == pytest.approx(22.0 / 15.0)


def test_a_clock_that_went_back_makes_nothing_negative():
    figures = job_metrics([job("j1", started_at=10.0, ended_at=4.0)], now=5.0)
    assert (figures.average_seconds, figures.parallelism) == (0.0, 0.0)
