"""Plan + tensors -> logits: packing, lowering, the two executors, sessions."""

from .callable_session import CallableSession, from_callable
from .forward_many import forward_many
from .network import Network
from .read import Read, Rows
from .session import Session

__all__ = ["CallableSession", "Network", "Read", "Rows", "Session", "forward_many", "from_callable"]
