"""A head of Dynamixel servos on a serial bus, protocol 2.0, with the servos' own watchdog armed.

Every channel carries its servo's id in its name, as in `id11_jaw`, and its neutral and ends in ticks. A thread owns the
bus: it writes the newest goal to all servos in one packet, then reads all positions in one; `send` and `feedback` never
wait for it. Nothing but commands keeps the bus talking, so when commands stop, the servos' bus watchdog stops them. The
servos' profiles are a second limit behind our own. Address: `dynamixel:/dev/ttyUSB0[?baud=1000000]`; slower than 1 Mbps
is refused, as 24 goals would take longer than a frame. `release` switches torque off and asks whether it is; where no
servo said so it raises. Set the servos' Return Delay Time to 0, or reading them all takes longer than it need.
"""

import math
import re
import threading
import time

import numpy as np

from deploy.calibration import Calibration
from deploy.plan import Command
from deploy.robots import Feedback, NotReleased, RobotLost
from deploy.robots import _dynamixel_bus as table
from deploy.robots._address import options_of
from deploy.robots._dynamixel_bus import Bus, BusError
from deploy.robots._outgoing import Outgoing

LEAST_BAUD = 1_000_000
WATCHDOG_TICKS = 10
"""Units of 20 ms after which silent servos stop by themselves: 200 ms."""
WATCHDOG_S = 0.02 * WATCHDOG_TICKS
TICKS_PER_TURN = 4096
RPM_PER_UNIT = 0.229
RPM2_PER_UNIT = 214.577
HEADROOM = 1.25
"""How far the servos' own profile lies above our limits: it must catch a fault, not slow the motion."""
RELAX_S = 0.5
"""How long servos are told to let go before it is given up."""
MISSES = 5
"""Failed readings in a row after which the bus is called lost."""
_ID = re.compile(r"id(\d{1,3})_\w+")


def servo_ids(calibration: Calibration) -> list[int]:
    """Servo ids in channel order."""
    ids = []
    for name in calibration.names:
        found = _ID.fullmatch(name)
        if not found or int(found[1]) > 252:
            raise ValueError(
                f"calibration {calibration.robot}: channel {name!r} wants its servo's id in its name, such as id11_jaw"
            )
        ids.append(int(found[1]))
    if not ids or len(set(ids)) < len(ids):
        raise ValueError(f"calibration {calibration.robot}: wanted at least one servo, each id once, got {ids}")
    return ids


def profiles(calibration: Calibration) -> tuple[list[int], list[int]]:
    """Profile acceleration and velocity of each servo in its own units, a little above the calibration's limits."""
    travel = np.array([max(abs(c.high - c.neutral), abs(c.low - c.neutral)) for c in calibration.channels.values()])
    velocity, acceleration, _ = calibration.limits
    rpm = HEADROOM * velocity * travel * 60 / TICKS_PER_TURN
    rpm2 = HEADROOM * acceleration * travel * 3600 / TICKS_PER_TURN
    accelerations = [min(32767, math.ceil(a / RPM2_PER_UNIT)) for a in rpm2]
    return accelerations, [min(32767, math.ceil(v / RPM_PER_UNIT)) for v in rpm]


def _still_on(doubt: str) -> str:
    return f"torque may still be on ({doubt}); the bus watchdog stays armed; cut the power before you reach in"


def _read(bus: Bus, attempts: int = 1) -> tuple[float, list[int]]:
    """All positions, and the middle of the time that reading them took."""
    before_s = time.monotonic()
    ticks = bus.positions(attempts)
    return (before_s + time.monotonic()) / 2, ticks


class DynamixelRobot:
    """Servos on one bus."""

    def __init__(self, calibration: Calibration, port: str, baud: int) -> None:
        self.calibration = calibration
        self._ids = servo_ids(calibration)
        self._port, self._baud = port, baud
        self._outgoing = Outgoing(calibration)
        self._bus: Bus | None = None
        self._thread: threading.Thread | None = None
        self._change = threading.Condition()
        self._goal: list[int] | None = None
        self._let_go = False
        self._running = False
        self._broken: str | None = None
        self._doubt: str | None = None
        """Why torque may be on; None when it was seen to be off, empty when nobody has asked."""
        self._seen: tuple[float, list[int]] | None = None
        self._written_s, self._misses = 0.0, 0

    def open(self) -> None:
        """Find every servo, check what it allows, hold it where it is, arm its watchdog; nothing moves."""
        self.close()
        try:
            bus = self._bus = Bus(self._port, self._baud, self._ids)
            for servo, channel in zip(self._ids, self.calibration.channels.values(), strict=True):
                bus.ping(servo)
                self._check(servo, bus, channel.low, channel.high)
            self._hold(bus)
        except BusError as error:
            self.close()
            raise ValueError(
                f"robot dynamixel: {error}; check the power, the cable, the ids and {self._baud} baud on {self._port}"
            ) from None
        except ValueError:
            self.close()
            raise
        self._broken, self._goal, self._let_go, self._running = None, None, False, True
        self._written_s, self._misses = time.monotonic(), 0
        self._thread = threading.Thread(target=self._serve, args=(bus,), name="dynamixel", daemon=True)
        self._thread.start()
        self._outgoing.begin()

    def _check(self, servo: int, bus: Bus, low: float, high: float) -> None:
        if (mode := bus.read(servo, table.OPERATING_MODE)) not in table.POSITION_MODES:
            raise ValueError(f"robot dynamixel: servo {servo} is in operating mode {mode}; set it to 3 (position)")
        if bus.read(servo, table.DRIVE_MODE) & table.TIME_BASED:
            raise ValueError(f"robot dynamixel: servo {servo} has time-based profiles; clear bit 2 of its Drive Mode")
        lowest, highest = bus.read(servo, table.LOWEST), bus.read(servo, table.HIGHEST)
        if mode != 4 and not (lowest <= min(low, high) and max(low, high) <= highest):  # 4: many turns, no limits
            raise ValueError(
                f"robot dynamixel: servo {servo} allows {lowest} to {highest} ticks, the calibration asks for {low:g} "
                f"to {high:g}; correct configs/robots or the servo's limits"
            )

    def _hold(self, bus: Bus) -> None:
        """Torque on where the servos stand, profiles set, watchdog armed (0 first: it clears an old alarm)."""
        bus.write(table.WATCHDOG, [0] * len(self._ids))
        self._seen = _read(bus, table.ATTEMPTS)
        present = self._seen[1]
        accelerations, velocities = profiles(self.calibration)
        bus.write(table.PROFILE_ACCELERATION, accelerations)
        bus.write(table.PROFILE_VELOCITY, velocities)
        bus.write(table.GOAL, present)
        try:
            self._switch_on(bus)
        except BusError as error:  # some may hold and some not: all let go
            try:
                self._relax(bus)
            except BusError as doubt:
                raise BusError(f"{error}; {doubt}") from None
            raise

    def _switch_on(self, bus: Bus) -> None:
        self._doubt = ""
        bus.write(table.TORQUE, [1] * len(self._ids))
        bus.write(table.WATCHDOG, [WATCHDOG_TICKS] * len(self._ids))
        for servo in self._ids:  # nobody answers a packet to all, so ask
            if not (bus.read(servo, table.TORQUE) and bus.read(servo, table.WATCHDOG) == WATCHDOG_TICKS):
                raise BusError(f"servo {servo} does not hold torque with its bus watchdog armed")

    def _serve(self, bus: Bus) -> None:
        """The bus's own thread: newest goal out, positions in; silent while nobody commands."""
        why = "its thread ended"
        try:
            while self._serve_once(bus):
                pass
        except BusError as error:
            why = str(error)
        finally:
            with self._change:
                self._broken, self._running = why, False
                self._change.notify_all()

    def _serve_once(self, bus: Bus) -> bool:
        """Wait for something to do and do it; False once the robot is closed."""
        with self._change:
            self._change.wait_for(lambda: self._goal or self._let_go or not self._running)
            (goal, self._goal), let_go, running = (self._goal, None), self._let_go, self._running
        if goal is not None and running:
            self._exchange(bus, goal)
        if let_go:
            self._relax(bus)
            with self._change:
                self._let_go = False
                self._change.notify_all()
        return running

    def _relax(self, bus: Bus) -> None:
        """Torque off, told until all servos say that it is; then watchdogs off. A servo in doubt keeps its watchdog."""
        until_s = time.monotonic() + RELAX_S
        while time.monotonic() < until_s:
            try:
                bus.write(table.TORQUE, [0] * len(self._ids))
                holding = bus.holding()
                self._doubt = f"servos {holding} hold" if holding else None
            except BusError as error:
                self._doubt = str(error)
            if self._doubt is None:
                return bus.write(table.WATCHDOG, [0] * len(self._ids))
        raise BusError(_still_on(self._doubt or "nobody was asked"))

    def _exchange(self, bus: Bus, goal: list[int]) -> None:
        """One packet out, all positions in; a reading that fails is forgiven a few times."""
        if time.monotonic() - self._written_s > 0.8 * WATCHDOG_S:  # the servos may have stopped: clear, arm again
            bus.write(table.WATCHDOG, [0] * len(self._ids))
            bus.write(table.WATCHDOG, [WATCHDOG_TICKS] * len(self._ids))
        bus.write(table.GOAL, goal)
        self._written_s = time.monotonic()
        try:
            self._seen, self._misses = _read(bus), 0
        except BusError:
            self._misses += 1
            if self._misses >= MISSES:
                raise

    def send(self, command: Command, now_s: float) -> Command:
        """Leave the goal to the bus's thread, rounded to ticks."""
        if (last := self._outgoing.held_back(now_s)) is not None:
            return last
        self._raise_if_lost()
        ticks = np.rint(self._outgoing.values(command))
        with self._change:
            self._goal = [int(t) for t in ticks]
            self._change.notify_all()
        return self._outgoing.went(command, ticks)

    def _raise_if_lost(self) -> None:
        if self._broken is not None:
            raise RobotLost(f"robot dynamixel: {self._broken}")

    def feedback(self, now_s: float) -> Feedback | None:
        """Present positions as last read, with the time of that reading."""
        self._raise_if_lost()
        if self._seen is None:
            return None
        read_s, ticks = self._seen
        joints = np.array(ticks, float)
        return Feedback(now_s - (time.monotonic() - read_s), self.calibration.shares_of(joints), joints)

    def release(self) -> None:
        """Torque off, seen to be off, then the watchdog; NotReleased where it was not seen."""
        with self._change:
            if self._running:
                self._let_go = True
                self._change.notify_all()
                self._change.wait_for(lambda: not (self._let_go and self._running), 1.0)
        if (doubt := self._doubt) is not None:
            raise NotReleased(f"robot dynamixel: {_still_on(doubt or self._broken or 'the bus does not answer')}")

    def close(self) -> None:
        """Give the port back; servos that still hold torque are stopped by their watchdog."""
        self._outgoing.end()
        with self._change:
            self._running = False
            self._change.notify_all()
        if self._thread is not None:
            self._thread.join(timeout=1.0)
        if self._bus is not None:
            self._bus.close()
        self._bus = self._thread = None


def make(calibration: Calibration, address: str) -> DynamixelRobot:
    """Entry point of `deploy.robots.load`."""
    port, _, query = address.partition("?")
    if not port:
        raise ValueError("robot dynamixel wants its serial port behind a colon, such as dynamixel:/dev/ttyUSB0")
    baud = options_of("dynamixel", query, ("baud",)).get("baud", str(LEAST_BAUD))
    if not baud.isdecimal() or int(baud) < LEAST_BAUD:
        raise ValueError(f"robot dynamixel: the bus must run at {LEAST_BAUD} baud or more, got {baud!r}")
    return DynamixelRobot(calibration, port, int(baud))
