"""ROS 2 messages as DDS types: the names and the memory layout that a ROS node expects on the wire.

ROS type pkg/msg/Name is DDS type pkg::msg::dds_::Name_, a string ends with a zero, and a field's order is its place.
Imported only when a ROS 2 robot is opened: it needs cyclonedds.  Source: common_interfaces and hri_msgs (humble).
"""

from dataclasses import dataclass

from cyclonedds.idl import IdlStruct
from cyclonedds.idl.annotations import autoid, final
from cyclonedds.idl.types import array, float32, float64, int32, sequence, uint32


@dataclass
@final
@autoid("sequential")
class Time(IdlStruct, typename="builtin_interfaces.msg.dds_.Time_"):
    """builtin_interfaces/Time."""

    sec: int32
    nanosec: uint32


@dataclass
@final
@autoid("sequential")
class Duration(IdlStruct, typename="builtin_interfaces.msg.dds_.Duration_"):
    """builtin_interfaces/Duration."""

    sec: int32
    nanosec: uint32


@dataclass
@final
@autoid("sequential")
class Header(IdlStruct, typename="std_msgs.msg.dds_.Header_"):
    """std_msgs/Header."""

    stamp: Time
    frame_id: str


@dataclass
@final
@autoid("sequential")
class FacialActionUnits(IdlStruct, typename="hri_msgs.msg.dds_.FacialActionUnits_"):
    """hri_msgs/FacialActionUnits; the index is the FACS code."""

    header: Header
    intensity: array[float32, 99]
    confidence: array[float32, 99]


@dataclass
@final
@autoid("sequential")
class JointTrajectoryPoint(IdlStruct, typename="trajectory_msgs.msg.dds_.JointTrajectoryPoint_"):
    """trajectory_msgs/JointTrajectoryPoint."""

    positions: sequence[float64]
    velocities: sequence[float64]
    accelerations: sequence[float64]
    effort: sequence[float64]
    time_from_start: Duration


@dataclass
@final
@autoid("sequential")
class JointTrajectory(IdlStruct, typename="trajectory_msgs.msg.dds_.JointTrajectory_"):
    """trajectory_msgs/JointTrajectory."""

    header: Header
    joint_names: sequence[str]
    points: sequence[JointTrajectoryPoint]


@dataclass
@final
@autoid("sequential")
class JointState(IdlStruct, typename="sensor_msgs.msg.dds_.JointState_"):
    """sensor_msgs/JointState."""

    header: Header
    name: sequence[str]
    position: sequence[float64]
    velocity: sequence[float64]
    effort: sequence[float64]
