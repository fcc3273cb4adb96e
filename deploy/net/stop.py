"""An emergency stop on its way to a controller elsewhere.

Bytes that were sent may still be lost: it is told in every connection anew, and only the controller's own word ends the
telling.
"""

from deploy.net.session import Session
from deploy.net.wire import sentence


class PendingStop:
    """At most one stop that the controller has not confirmed yet."""

    def __init__(self) -> None:
        self.why: str | None = None
        """Of the stop that is not confirmed; None when none is."""
        self._told: Session | None = None

    def tell(self, session: Session) -> None:
        """Say it once in this connection, or hear that it has come."""
        if not session.ready or self.why is None:
            return
        if session is not self._told:
            session.connection.send(sentence("stop", self.why))
            session.status = None  # only what it says from now on counts
            self._told = session
        elif session.status is not None and session.status.stop_reason is not None:
            self.why = self._told = None

    def doubt(self, address: str) -> str | None:
        """What is to be said when there is no more time to tell it."""
        if (why := self.why) is None:
            return None
        return f"the emergency stop ({why}) was NOT confirmed by {address}; cut the robot's power"
