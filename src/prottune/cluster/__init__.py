"""A Kubernetes cluster as prottune sees it: objects, pods, leases. Only this room imports `kubernetes`."""
