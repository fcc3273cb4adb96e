"""Dynamixel servos that are not there: protocol 2.0 on a pseudo-terminal, written from the protocol's description.

Independent of dynamixel-sdk: own framing, own bitwise CRC, own control table. Servos reach a goal at once; the bus
watchdog counts real time and makes goals read-only, as the firmware does.
"""

import contextlib
import os
import select
import threading
import time
import tty
from pathlib import Path

HEADER = b"\xff\xff\xfd\x00"
BROADCAST = 0xFE
PING, READ, WRITE, SYNC_READ, SYNC_WRITE, STATUS = 1, 2, 3, 0x82, 0x83, 0x55
TORQUE, WATCHDOG, GOAL, PRESENT = 64, 98, 116, 132


def crc16(data: bytes) -> int:
    """CRC-16 with polynomial 0x8005, bit by bit."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = ((crc << 1) ^ 0x8005 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


def status(servo: int, parameters: bytes = b"", error: int = 0) -> bytes:
    body = bytes([STATUS, error]) + parameters
    packet = HEADER + bytes([servo]) + (len(body) + 2).to_bytes(2, "little") + body
    return packet + crc16(packet).to_bytes(2, "little")


PATIENCE = 10
"""A watchdog waits so much longer than a real one: on a busy machine this emulator itself is late."""


class Servo:
    """One control table."""

    def __init__(self, ident: int, position: int) -> None:
        self.ident = ident
        self.table = bytearray(147)
        self.put(11, 3, 1)
        self.put(48, 4095, 4)
        self.put(52, 0, 4)
        self.put(PRESENT, position, 4)
        self.heard_s = time.monotonic()
        self.deaf_to, self.misses = -1, 0
        """An entry whose next so many writes are lost on the way."""

    def put(self, address: int, value: int, size: int) -> None:
        self.table[address : address + size] = value.to_bytes(size, "little", signed=True)

    def get(self, address: int, size: int) -> int:
        return int.from_bytes(self.table[address : address + size], "little", signed=True)

    def watch(self) -> None:
        limit = self.get(WATCHDOG, 1)
        now_s = time.monotonic()
        if limit > 0 and self.get(TORQUE, 1) and now_s - self.heard_s > PATIENCE * 0.02 * limit:
            self.put(WATCHDOG, -1, 1)
        self.heard_s = now_s

    def write(self, address: int, data: bytes) -> int:
        if address == GOAL and self.get(WATCHDOG, 1) < 0:
            return 4  # a range error, and nothing moves
        if address == self.deaf_to and self.misses:
            self.misses -= 1
            return 0
        self.table[address : address + len(data)] = data
        if address == GOAL and self.get(TORQUE, 1):
            self.table[PRESENT : PRESENT + 4] = data
        return 0


class Bus:
    """Servos behind a path that looks like a serial port; `pull` takes the plug out, `plug` puts it in again."""

    def __init__(self, folder: Path, ids: list[int], position: int = 2048) -> None:
        self.path = folder / "ttyUSB0"
        self.servos = {i: Servo(i, position) for i in ids}
        self.goals: list[dict[int, int]] = []
        self.packets: list[tuple[int, int]] = []
        """(instruction, first parameter) of everything that came."""
        self.late_positions = False
        """Whether an older question's answer comes first when all are asked: where they were, not what was asked."""
        self.change = threading.Condition()
        self.plug()

    def plug(self) -> None:
        self._master, slave = os.openpty()
        tty.setraw(slave)
        self.path.unlink(missing_ok=True)
        self.path.symlink_to(os.ttyname(slave))
        self._slave, self._alive = slave, True
        self._wake, listen = os.pipe()[::-1]
        self._thread = threading.Thread(target=self._serve, args=(self._master, listen), daemon=True)
        self._thread.start()

    def pull(self) -> None:
        """Both ends close; whoever holds the port meets an input/output error."""
        if not self._alive:
            return
        self._alive = False
        os.close(self._wake)
        self._thread.join()

    def _serve(self, master: int, listen: int) -> None:
        pending, slave = b"", self._slave
        while True:
            ready, _, _ = select.select([master, listen], [], [])
            if listen in ready:
                break
            pending = self._take(master, pending + os.read(master, 4096))
        for end in (slave, master, listen):
            os.close(end)

    def _take(self, master: int, data: bytes) -> bytes:
        while (start := data.find(HEADER)) >= 0 and len(data) >= start + 7:
            length = int.from_bytes(data[start + 5 : start + 7], "little")
            end = start + 7 + length
            if len(data) < end:
                break
            packet, data = data[start:end], data[end:]
            assert crc16(packet[:-2]) == int.from_bytes(packet[-2:], "little"), "a damaged packet"
            assert b"\xff\xff\xfd" not in packet[7:-2], "our goals need no byte stuffing"
            with self.change:
                answer = self._answer(packet[4], packet[7], packet[8:-2])
                self.change.notify_all()
            with contextlib.suppress(OSError):
                os.write(master, answer)
        return data

    def _answer(self, ident: int, instruction: int, parameters: bytes) -> bytes:
        for servo in self.servos.values():
            servo.watch()
        self.packets.append((instruction, parameters[0] if parameters else 0))
        if instruction == SYNC_WRITE:
            return self._sync_write(parameters)
        address, size = (int.from_bytes(parameters[i : i + 2], "little") for i in (0, 2))
        if instruction == SYNC_READ:
            present = [self.servos[i] for i in parameters[4:] if i in self.servos]
            late = [status(s.ident, bytes(s.table[PRESENT : PRESENT + 4])) for s in present if self.late_positions]
            return b"".join([*late, *(status(s.ident, bytes(s.table[address : address + size])) for s in present)])
        servo = self.servos.get(ident)
        if servo is None:
            return b""
        if instruction == PING:
            return status(ident, (1060).to_bytes(2, "little") + b"\x2d")
        if instruction == READ:
            return status(ident, bytes(servo.table[address : address + size]))
        assert instruction == WRITE, f"unknown instruction {instruction}"
        return status(ident, error=servo.write(address, parameters[2:]))

    def _sync_write(self, parameters: bytes) -> bytes:
        address, size = (int.from_bytes(parameters[i : i + 2], "little") for i in (0, 2))
        goals = {}
        for at in range(4, len(parameters), size + 1):
            ident, data = parameters[at], parameters[at + 1 : at + 1 + size]
            if ident in self.servos:
                refused = self.servos[ident].write(address, data)
                goals[ident] = self.servos[ident].get(GOAL, 4) if not refused else None
        if address == GOAL and self.servos and all(s.get(TORQUE, 1) for s in self.servos.values()):
            self.goals.append({i: g for i, g in goals.items() if g is not None})
        return b""
