"""The pages a person sees, one file each. They read through `dashboard.views`; what they change goes through the JSON API."""

from fastapi import APIRouter

from dashboard.pages import evaluation, farm, jobs, machines, settings, submit

router = APIRouter(include_in_schema=False)
for _page in (farm, submit, jobs, machines, evaluation, settings):
    router.include_router(_page.router)
