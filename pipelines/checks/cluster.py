"""Checks of the cluster itself: whether it answers, what may be done there, and its GPUs."""

from collections.abc import Callable

from pipelines import manifests
from pipelines.checks.finding import Finding, NotCheckedError, failed, listed, ok, warning
from pipelines.checks.surroundings import Surroundings
from prottune.cluster.connection import ForbiddenError
from prottune.cluster.objects import GPU, NODES, Object
from prottune.cluster.rights import Call, calls_of, is_allowed
from prottune.errors import ConfigError, ServiceError


def cluster(surroundings: Surroundings) -> Finding:
    """Whether the API server answers to who asks."""
    try:
        found, version = surroundings.reached()
    except NotCheckedError:
        raise
    except (ServiceError, ConfigError) as error:
        return failed(str(error), "is it the right kubeconfig (KUBECONFIG), and not expired: kubectl version")
    who = "a pod's account" if surroundings.in_pod else "the kubeconfig's user"
    return ok(f"Kubernetes {version} at {found.address}, namespace {found.namespace}, as {who}")


def rights(surroundings: Surroundings) -> Finding:
    """Whether who asks may make every call that prottune makes."""
    there = surroundings.cluster()
    role = manifests.roles_of_runs()[0]
    calls, place = calls_of(role), f"manifests/base/role.yaml in namespace {there.namespace}"
    may_not = _refused(calls, lambda call: is_allowed(there, call))
    told = f"{len(calls)} calls of {place}"
    if not may_not:
        return ok(f"you may make all {told}")
    if surroundings.in_pod:
        return failed(f"this account may not {may_not}, of {told}", _apply([role]))
    advice = "nothing, if only runs on the cluster deploy and train; they have an account of their own"
    return warning(f"you may not {may_not}, of {told}", advice)


def rights_of_runs(surroundings: Surroundings) -> Finding:
    """Whether the account of a run's steps may make every call that prottune and the launcher make."""
    there, account = surroundings.cluster(), manifests.account_of_runs()
    roles = manifests.roles_of_runs()
    calls = [call for role in roles for call in calls_of(role)]
    told = f"{len(calls)} calls of manifests/base in namespace {there.namespace}"
    try:
        may_not = _refused(calls, lambda call: is_allowed(there, call, account))
    except ForbiddenError:
        why = f"you may not ask what {account} may in namespace {there.namespace}"
        user = f"system:serviceaccount:{there.namespace}:{account}"
        advice = f"ask an administrator: kubectl -n {there.namespace} auth can-i --list --as {user}"
        raise NotCheckedError(why, advice) from None
    if may_not:
        return failed(f"{account} may not {may_not}, of {told}", _apply(roles))
    return ok(f"{account} may make all {told}")


def _refused(calls: list[Call], may: Callable[[Call], bool]) -> str:
    """Which of the calls are not allowed."""
    return listed([str(call) for call in calls if not may(call)])


def _apply(roles: list[Object]) -> str:
    names = listed([role["metadata"]["name"] for role in roles])
    which = f"Role{'s' if len(roles) > 1 else ''} {names}"
    return f"let somebody with the right to it run: kubectl apply -k manifests/overlays/... ({which})"


def gpus(surroundings: Surroundings) -> Finding:
    """Whether nodes offer the GPUs that the next run asks for."""
    wanted = surroundings.flags.num_gpus
    if wanted is None:
        from pipelines.resources import NUM_GPUS

        wanted = NUM_GPUS
    there = surroundings.cluster()
    try:
        nodes = there.list(NODES)
    except ForbiddenError:
        why = "not allowed to see nodes, so GPUs were not counted"
        raise NotCheckedError(why, "ask an administrator: kubectl get nodes") from None
    offered = [_gpus_of(node) for node in nodes if _takes_pods(node)]
    total, largest = sum(offered), max(offered, default=0)
    told = f"{total} on {sum(number > 0 for number in offered)} of {len(offered)} nodes that take pods"
    if wanted > largest:
        advice = f"submit with --num-gpus {largest}, or add nodes (and NVIDIA's device plugin) to the cluster"
        return failed(f"{GPU}: {told}, at most {largest} on one; a pod will ask for {wanted}", advice)
    return ok(f"{GPU}: {told}; a pod will ask for {wanted} (how many are in use was not looked at)")


def _gpus_of(node: Object) -> int:
    return int(node.get("status", {}).get("allocatable", {}).get(GPU, 0))


def _takes_pods(node: Object) -> bool:
    """Whether a node is ready, and nobody has closed it."""
    conditions = node.get("status", {}).get("conditions", [])
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    return ready and not node.get("spec", {}).get("unschedulable")
