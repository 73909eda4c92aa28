"""Plan + tensors -> logits: packing, lowering, the two executors, sessions."""

from fastdistill.runtime.callable_session import CallableSession, from_callable
from fastdistill.runtime.forward import Forward, SessionLike
from fastdistill.runtime.forward_many import forward_many
from fastdistill.runtime.network import Network
from fastdistill.runtime.profile import Profile
from fastdistill.runtime.read import Read, Rows
from fastdistill.runtime.session import Session

__all__ = [
    "CallableSession", "Forward", "Network", "Profile", "Read", "Rows", "Session", "SessionLike", "forward_many", "from_callable",
]  # fmt: skip
