"""What whoever sits at the loop must know of the robot over there, said once: it is stopped, or it may hold on."""

import logging

from deploy.motion.states import Status

_LOG = logging.getLogger("deploy")


class News:
    """Of the controller at one address."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._stopped: str | None = None
        self._doubt: str | None = None

    def hear(self, status: Status) -> None:
        """Log what was not so before."""
        stopped, doubt = status.stop_reason, status.doubt
        if stopped is not None and stopped != self._stopped:
            _LOG.warning("%s: stopped: %s; to arm it: POST /arm to its HTTP address", self._address, stopped)
        if doubt is not None and doubt != self._doubt:
            _LOG.error("%s: %s", self._address, doubt)
        self._stopped, self._doubt = stopped, doubt
