"""Dynamixel servos of the X series on one serial bus, protocol 2.0: the control table's entries that we use.

Each method is one or a few packets and returns when the bus is free again. A servo that does not answer, a failed
packet or a vanished port raises BusError with a sentence. A port has one user: two processes on one bus would garble
each other's packets, and both would move the face.  Source: ROBOTIS e-Manual, X series control table.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

from deploy.robots._extras import need

DRIVE_MODE, OPERATING_MODE = (10, 1), (11, 1)
LOWEST, HIGHEST = (52, 4), (48, 4)
TORQUE = (64, 1)
WATCHDOG = (98, 1)
PROFILE_ACCELERATION, PROFILE_VELOCITY = (108, 4), (112, 4)
GOAL, PRESENT = (116, 4), (132, 4)
POSITION_MODES = (3, 4, 5)
TIME_BASED = 0b100
"""Bit of the drive mode that would make a profile's velocity a duration."""
WRITE_TIMEOUT_S = 0.2
ATTEMPTS = 3
"""How often a servo is asked at start-up before it counts as silent."""
FRAME_BYTES, PING_BYTES = 11, 3
"""Of a status packet around its data, and of the data that answers a ping."""
ERROR_AT, ERROR_BITS = 8, 0x7F
"""Where a status packet tells an error, which it may do without data; the last bit is an alert beside an answer."""
READ_SLICE_S = 0.002
"""The SDK asks the port again and again; waiting a little in it leaves the processor to others."""


try:
    import fcntl
    import termios  # what pyserial lets through where a port is a terminal

    _TERMINAL_ERRORS: tuple[type[Exception], ...] = (termios.error,)
except ImportError:  # Windows, whose ports have one user anyway
    fcntl, _TERMINAL_ERRORS = None, ()


class BusError(ConnectionError):
    """The bus or a servo did not do what was asked."""


def _lock(port: str) -> int | None:
    """A descriptor that keeps other users from the port until it is closed; ValueError when there is one already.

    Before the port itself is opened, for that already throws away what the other one was about to read. The lock is
    the one that pyserial takes for `exclusive` ports.
    """
    if fcntl is None:
        return None
    descriptor = os.open(port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ValueError(f"robot dynamixel: {port} is in use by another process; end that one first") from None
    return descriptor


class Bus:
    """An open port and the servos on it."""

    def __init__(self, port: str, baud: int, ids: list[int]) -> None:
        sdk: Any = need("dynamixel", "dynamixel_sdk", "dynamixel-sdk")
        serial: Any = need("dynamixel", "serial", "dynamixel-sdk")
        self._failures = (serial.SerialException, OSError, *_TERMINAL_ERRORS)
        self._ids, self._success = ids, sdk.COMM_SUCCESS
        self._packets = sdk.PacketHandler(2.0)
        self._receive, self._packets.rxPacket = self._packets.rxPacket, self._fitting
        self._expected = 0
        self._port = sdk.PortHandler(port)
        if self._port.getCFlagBaud(baud) <= 0:
            raise BusError(f"{baud} baud is none of the rates that the servos know")
        self._held: int | None = None
        try:
            self._held = _lock(port)
            self._port.setBaudRate(baud)
        except self._failures as error:
            self._give_back()
            raise BusError(f"{port} does not open ({error})") from None
        self._port.ser.timeout, self._port.ser.write_timeout = READ_SLICE_S, WRITE_TIMEOUT_S
        self._readers = {entry: sdk.GroupSyncRead(self._port, self._packets, *entry) for entry in (PRESENT, TORQUE)}
        for reader in self._readers.values():
            for servo in ids:
                reader.addParam(servo)

    @contextlib.contextmanager
    def _on_the_wire(self) -> Iterator[None]:
        """The port's own errors in our words."""
        try:
            yield
        except self._failures as error:
            raise BusError(f"the port is gone ({error})") from None

    def _fitting(self, port: Any, fast: bool) -> tuple[Any, int]:
        """The next packet that can answer the question asked last.

        A packet does not say which question it answers, and one that comes late would be taken for the answer to the
        next: a position's low byte for torque that is off. Those of another length are passed over.
        """
        while True:
            packet, result = self._receive(port, fast)
            if result != self._success or len(packet) == FRAME_BYTES + self._expected or packet[ERROR_AT] & ERROR_BITS:
                return packet, result

    def ping(self, servo: int) -> None:
        """Is it there, and well?"""
        self._expected = PING_BYTES
        self._ask(servo, self._packets.ping)

    def read(self, servo: int, entry: tuple[int, int]) -> int:
        """One entry of one servo's table, signed."""
        self._expected = entry[1]
        data = self._ask(servo, self._packets.readTxRx, *entry)
        return int.from_bytes(bytes(data), "little", signed=True)

    def _ask(self, servo: int, request: Callable[..., tuple[Any, int, int]], *arguments: int) -> Any:
        """What one servo answers, asked again where the answer was lost or damaged."""
        data, result, error = None, -1, 0
        for _ in range(ATTEMPTS):
            with self._on_the_wire():
                data, result, error = request(self._port, servo, *arguments)
            if result == self._success:
                break
        else:
            raise BusError(f"servo {servo} does not answer ({self._packets.getTxRxResult(result)})")
        if error:
            raise BusError(f"servo {servo} reports an error ({self._packets.getRxPacketError(error)})")
        return data

    def write(self, entry: tuple[int, int], values: list[int]) -> None:
        """The same entry of all servos in one packet, which nobody answers."""
        address, size = entry
        parameters = []
        for servo, value in zip(self._ids, values, strict=True):
            parameters += [servo, *value.to_bytes(size, "little", signed=True)]
        with self._on_the_wire():
            result = self._packets.syncWriteTxOnly(self._port, address, size, parameters, len(parameters))
        if result != self._success:
            raise BusError(self._packets.getTxRxResult(result))

    def positions(self, attempts: int = 1) -> list[int]:
        """Where all servos are, in ticks, from one request."""
        return [t - 2**32 if t >= 2**31 else t for t in self._of_all(PRESENT, attempts)]

    def holding(self) -> list[int]:
        """Ids of the servos that have torque, from one request."""
        return [servo for servo, torque in zip(self._ids, self._of_all(TORQUE), strict=True) if torque]

    def _of_all(self, entry: tuple[int, int], attempts: int = 1) -> list[int]:
        """One entry of every servo's table, unsigned."""
        reader, result = self._readers[entry], -1
        self._expected = entry[1]
        for _ in range(attempts):
            with self._on_the_wire():
                result = reader.txRxPacket()
            if result == self._success:
                return [reader.getData(servo, *entry) for servo in self._ids]
        raise BusError(f"not every servo answers ({self._packets.getTxRxResult(result)})")

    def close(self) -> None:
        """Give the port back."""
        with contextlib.suppress(*self._failures):
            self._port.closePort()
        self._give_back()

    def _give_back(self) -> None:
        """Let others have the port."""
        held, self._held = self._held, None
        if held is not None:
            os.close(held)
