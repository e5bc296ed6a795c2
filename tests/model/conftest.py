import pytest


@pytest.fixture(params=["cls", "mean", "attention"])
def head(request):
    return request.param
