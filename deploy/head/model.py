"""The simulated head's mechanics: 30 position servos with dead time and time constant, sensors on every joint.

Sizes in metres, x to the viewer's right, y towards the viewer's back (the head looks along -y), z up. Feature bodies
slide or turn on the skull; the painter draws smooth curves through their sites. Servos are MuJoCo's own `position`
actuators with a first-order filter and a delay, so that lag is physics, not bookkeeping.
"""

from dataclasses import dataclass
from xml.sax.saxutils import quoteattr


@dataclass(frozen=True)
class Channel:
    """One servo: its joint, and the travel from its neutral."""

    name: str
    parent: str
    kind: str
    """slide or hinge."""
    axis: str
    at: str
    """Position of the joint's body in its parent, metres."""
    low: float
    high: float
    """Travel in metres or radians; neutral is 0."""


def _pair(name: str, x: float, rest: str, kind: str, axis: str, low: float, high: float, mirror: bool) -> list[Channel]:
    """Left and right servo; `mirror` turns the axis of the left one round."""
    flipped = axis if not mirror else " ".join(str(-float(v)) for v in axis.split())
    return [
        Channel(f"{name}_right", "skull", kind, axis, f"{x} {rest}", low, high),
        Channel(f"{name}_left", "skull", kind, flipped, f"{-x} {rest}", low, high),
    ]


NECK = (
    Channel("neck_yaw", "base", "hinge", "0 0 1", "0 0 0", -0.6, 0.6),
    Channel("neck_pitch", "neck_yaw", "hinge", "1 0 0", "0 0 0", -0.4, 0.4),
    Channel("neck_roll", "neck_pitch", "hinge", "0 1 0", "0 0 0", -0.3, 0.3),
)
FACE: tuple[Channel, ...] = (
    *_pair("brow_inner", 0.018, "-0.09 0.052", "slide", "0 0 1", -0.012, 0.016, False),
    *_pair("brow_outer", 0.05, "-0.075 0.05", "slide", "0 0 1", -0.008, 0.016, False),
    *_pair("brow_pinch", 0.03, "-0.088 0.06", "slide", "-1 0 0", -0.002, 0.01, True),
    *_pair("lid_upper", 0.034, "-0.078 0.03", "slide", "0 0 1", -0.024, 0.012, False),
    *_pair("lid_lower", 0.034, "-0.078 0.015", "slide", "0 0 1", -0.006, 0.012, False),
    *_pair("eye_yaw", 0.034, "-0.07 0.022", "hinge", "0 0 1", -0.5, 0.5, False),
    *_pair("cheek", 0.05, "-0.07 -0.012", "slide", "0 0 1", -0.002, 0.012, False),
    *_pair("corner_out", 0.028, "-0.085 -0.048", "slide", "1 0 0", -0.018, 0.016, True),
    *_pair("corner_up", 0.028, "-0.085 -0.05", "slide", "0 0 1", -0.016, 0.018, False),
    *_pair("dimple", 0.042, "-0.075 -0.046", "slide", "0 1 0", -0.002, 0.01, False),
    Channel("eye_pitch", "skull", "hinge", "1 0 0", "0 -0.07 0.022", -0.4, 0.4),
    Channel("nose", "skull", "slide", "0 0 1", "0 -0.1 -0.008", -0.002, 0.009),
    Channel("lip_upper", "skull", "slide", "0 0 1", "0 -0.095 -0.044", -0.006, 0.014),
    Channel("lip_lower", "skull", "slide", "0 0 1", "0 -0.093 -0.054", -0.014, 0.01),
    Channel("lip_thin", "skull", "slide", "0 1 0", "0 -0.092 -0.05", -0.004, 0.01),
    Channel("jaw", "skull", "hinge", "1 0 0", "0 -0.02 -0.02", -0.02, 0.36),
    Channel("chin", "jaw", "slide", "0 0 1", "0 -0.06 -0.06", -0.002, 0.01),
)
CHANNELS: tuple[Channel, ...] = (*NECK, *FACE)
"""All servos, in the order of the model's actuators."""
NAMES: tuple[str, ...] = tuple(c.name for c in CHANNELS)
STEP_S = 0.002
"""Physics step: 500 Hz."""
DEAD_TIME_S, TIME_CONSTANT_S = 0.04, 0.03
"""Of every servo: from a command until it acts, and of its activation's first-order filter. What a calibration says
changes nothing here. A joint has inertia behind that (twice 23 ms in the mean for slides, 4 for hinges) and its sensor
speaks two steps later, so `deploy.calibrate` rightly finds 44 and 75 ms of a whole joint, not these two figures."""


def _body(channel: Channel, inside: str) -> str:
    return (
        f"<body name={quoteattr(channel.name)} pos={quoteattr(channel.at)} gravcomp='1'>"
        f"<joint name={quoteattr(channel.name)} type={quoteattr(channel.kind)} axis={quoteattr(channel.axis)} "
        f"range='{channel.low} {channel.high}' damping='0.02' armature='0.0005'/>"
        f"<geom type='sphere' size='0.006' mass='0.02' contype='0' conaffinity='0'/>"
        f"<site name={quoteattr(channel.name)}/>{inside}</body>"
    )


def build_xml(dead_time_s: float, time_constant_s: float) -> str:
    """The model as MJCF, with this dead time and time constant on every servo."""
    children: dict[str, list[Channel]] = {}
    for channel in CHANNELS:
        children.setdefault(channel.parent, []).append(channel)

    def nested(parent: str) -> str:
        return "".join(_body(c, nested(c.name)) for c in children.get(parent, ()))

    skull = (
        "<body name='skull' pos='0 0 0.1' gravcomp='1'>"
        "<geom type='ellipsoid' size='0.085 0.1 0.115' mass='0.6' contype='0' conaffinity='0'/>"
        f"<site name='skull'/>{nested('skull')}</body>"
    )
    neck = ""
    for channel in reversed(NECK):
        neck = _body(channel, neck if neck else skull)
    samples = max(2, round(dead_time_s / STEP_S) + 1)
    servos = "".join(
        f"<position name={quoteattr(c.name)} joint={quoteattr(c.name)} kp='{600 if c in NECK else 40}' dampratio='1' "
        f"timeconst='{time_constant_s}' ctrlrange='{c.low} {c.high}' delay='{dead_time_s}' nsample='{samples}'/>"
        for c in CHANNELS
    )
    sensors = "".join(f"<jointpos name={quoteattr(c.name)} joint={quoteattr(c.name)}/>" for c in CHANNELS)
    return (
        f"<mujoco model='rapport head'><compiler angle='radian'/>"
        f"<option timestep='{STEP_S}' integrator='implicitfast' gravity='0 0 -9.81'/>"
        f"<worldbody><body name='base'>{neck}</body></worldbody>"
        f"<actuator>{servos}</actuator><sensor>{sensors}</sensor></mujoco>"
    )
