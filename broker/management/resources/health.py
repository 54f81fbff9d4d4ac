"""Health checks: 200 when all is well, 503 and the reason when it is not, for load balancers and monitors."""

from __future__ import annotations

from fastapi import APIRouter
from leveret.management.json_reply import Json
from leveret.management.login import CurrentSurvey
from leveret.management.survey import Survey
from starlette.responses import Response

routes = APIRouter(prefix="/health/checks", tags=["health"])


def alarms_check(survey: Survey, reason: str) -> Json:
    """No resource is in alarm. A supervisor that cannot be asked is no good news either."""
    if survey.answers.node is None:
        return Json({"status": "failed", "reason": "the supervisor process does not answer", "alarms": []}, status_code=503)
    raised = [{"node": survey.node_name, "resource": resource} for resource, is_raised in survey.alarms.items() if is_raised]
    if raised:
        return Json({"status": "failed", "reason": reason, "alarms": raised}, status_code=503)
    return Json({"status": "ok"})


@routes.get("/alarms")
async def check_alarms(survey: CurrentSurvey) -> Response:
    return alarms_check(survey, "There are alarms in effect in the cluster")


@routes.get("/local-alarms")
async def check_local_alarms(survey: CurrentSurvey) -> Response:
    return alarms_check(survey, "There are alarms in effect on the node")
