"""ROS messages are right to the byte, stay where they should, and joints report back."""

import dataclasses
import itertools
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from robot_peers import Ros2Peer, RosbridgePeer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from deploy import robots
from deploy.calibration import Calibration, Channel
from deploy.plan import Command
from deploy.robots import RobotLost, _ros
from deploy.robots import _ros2_types as types
from deploy.robots._address import parse
from deploy.robots._ros import Split, States
from deploy.robots.ros2 import Ros2Robot, network
from deploy.robots.rosbridge import RosbridgeRobot

FACIAL_ACTION_UNITS = "std_msgs/Header header\nfloat32[99] intensity\nfloat32[99] confidence\n"
JOINTS = {"jaw": Channel(low=0.0, high=0.5), "neck": Channel(low=-0.4, high=0.6)}


def joints(name: str) -> Calibration:
    """A servo head behind the wire `name`: two joints, one unit each."""
    au = {"AU26": {"jaw": 1.0}, "AU4": {"neck": -0.5}}
    return dataclasses.replace(Calibration.load(name), channels=JOINTS, au=au, share_max=())


def until(happened: Any) -> Any:
    """Ask again until it says something; what comes over a wire takes its time."""
    deadline = time.monotonic() + 10
    while (said := happened()) is None:
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)
    return said


def rosbags_store() -> Any:
    store = get_typestore(Stores.ROS2_HUMBLE)
    store.register(get_types_from_msg(FACIAL_ACTION_UNITS, "hri_msgs/msg/FacialActionUnits"))
    return store


def test_ros_messages_are_byte_for_byte_what_an_independent_serializer_writes() -> None:
    store = rosbags_store()
    of = store.types
    rng = np.random.default_rng(3)
    stamp = of["builtin_interfaces/msg/Time"](sec=7, nanosec=123)
    header = of["std_msgs/msg/Header"](stamp=stamp, frame_id="head")
    ours = types.Header(types.Time(7, 123), "head")
    a, b = rng.random(99, np.float32), rng.random(99, np.float32)
    theirs = of["hri_msgs/msg/FacialActionUnits"](header=header, intensity=a, confidence=b)
    written = types.FacialActionUnits(types.Header(types.Time(7, 123), ""), a.tolist(), b.tolist()).serialize()
    assert len(written) == 812
    written = types.FacialActionUnits(ours, a.tolist(), b.tolist()).serialize()
    assert written == bytes(store.serialize_cdr(theirs, "hri_msgs/msg/FacialActionUnits"))

    names, at = ["jaw", "neck_yaw", "n"], np.array([0.1, -0.2, 0.3])
    none = np.zeros(0)
    soon = of["builtin_interfaces/msg/Duration"](sec=0, nanosec=16666667)
    point = of["trajectory_msgs/msg/JointTrajectoryPoint"](
        positions=at, velocities=none, accelerations=none, effort=none, time_from_start=soon
    )
    theirs = of["trajectory_msgs/msg/JointTrajectory"](header=header, joint_names=names, points=[point])
    own_point = types.JointTrajectoryPoint(at.tolist(), [], [], [], types.Duration(0, 16666667))
    written = types.JointTrajectory(ours, names, [own_point]).serialize()
    assert written == bytes(store.serialize_cdr(theirs, "trajectory_msgs/msg/JointTrajectory"))

    theirs = of["sensor_msgs/msg/JointState"](header=header, name=names, position=at, velocity=none, effort=none)
    written = types.JointState(ours, names, at.tolist(), [], []).serialize()
    assert written == bytes(store.serialize_cdr(theirs, "sensor_msgs/msg/JointState"))


def test_dds_announces_the_names_and_the_quality_that_ros_expects() -> None:
    from cyclonedds.core import Policy

    robot: Any = robots.load("ros2:?domain=97&facs=/robot_face/facs")
    robot.open()
    writer = robot._entities["facs"]
    assert writer.topic.name == "rt/robot_face/facs"
    assert writer.topic.typename == "hri_msgs::msg::dds_::FacialActionUnits_"
    quality = writer.get_qos()
    assert quality[Policy.Reliability] == Policy.Reliability.BestEffort
    assert quality[Policy.History] == Policy.History.KeepLast(1)
    assert quality[Policy.Durability] == Policy.Durability.Volatile
    robot.close()


def test_dds_stays_on_this_machine_unless_told_otherwise() -> None:
    here = network("127.0.0.1")
    assert 'address="127.0.0.1" multicast="false"' in here
    assert "<AllowMulticast>false" in here
    assert 'address="10.0.0.7"' in network("10.0.0.7")
    robot = robots.load("ros2:203.0.113.9?domain=96")
    with pytest.raises(ValueError, match=r"robot ros2: cannot join domain 96 on 203.0.113.9"):
        robot.open()
    robot.close()


def test_joints_travel_as_a_trajectory_and_report_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_ros, "FIRST_STATE_S", 0.0)
    peer = Ros2Peer(tmp_path)
    robot = Ros2Robot(joints("ros2"), "127.0.0.1", {"domain": str(peer.domain)})
    robot.open()
    peer.ready(robot)
    assert robot.feedback(0.0) is None
    now_s = itertools.count(1.0)
    command = Command(0, 0.0, np.array([0.4, -0.5]))

    def echoed() -> Any:
        robot.send(command, next(now_s))
        return robot.feedback(5.0)

    seen = until(echoed)
    peer.wait_for({"jaw": 0.2, "neck": -0.2})
    np.testing.assert_allclose(seen.joints, [0.2, -0.2])
    np.testing.assert_allclose(seen.shares, [0.4, -0.5])
    assert 4.8 <= seen.time_s <= 5.0
    states = robot._entities["states"]
    peer.stop()
    until(lambda: None if states.get_matched_publications() else True)
    robot.feedback(6.0)  # word of the publisher's leave is no joint state
    robot.close()


def test_joints_through_rosbridge_report_where_they_are_until_that_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = RosbridgePeer(tmp_path)
    robot = RosbridgeRobot(joints("rosbridge"), parse("rosbridge", peer.address, 9090), "let me in")
    monkeypatch.setattr(_ros, "FIRST_STATE_S", 0.0)
    robot.open()
    peer.wait(lambda: bool(peer.subscriptions))
    assert peer.subscriptions == {"/joint_states": "sensor_msgs/msg/JointState"}
    assert peer.headers["Authorization"] == "Bearer let me in"
    robot.send(Command(0, 0.0, np.array([1.0, 1.0])), 0.0)
    peer.wait_for({"jaw": 0.5, "neck": 0.6})
    peer.publish("/joint_states", {"name": ["neck", "wheel"], "position": [0.3, 9.0]})
    peer.publish("/joint_states", {"name": ["jaw"], "position": [0.25]})
    seen = until(lambda: robot.feedback(2.0))
    np.testing.assert_allclose(seen.shares, [0.5, 0.5])
    later_s = time.monotonic() + 1.0
    monkeypatch.setattr(time, "monotonic", lambda: later_s)
    assert robot.feedback(3.0) is None
    monkeypatch.undo()
    robot.close()
    peer.stop()


def test_a_joint_head_is_open_only_once_its_pose_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ros, "FIRST_STATE_S", 20.0)
    peer = RosbridgePeer(tmp_path)
    robot = RosbridgeRobot(joints("rosbridge"), parse("rosbridge", peer.address, 9090), "")
    peer.pose = {"name": ["neck", "jaw"], "position": [0.3, 0.25]}
    robot.open()
    seen = robot.feedback(1.0)
    assert seen is not None, "the first thing a controller asks is answered"
    np.testing.assert_allclose(seen.shares, [0.5, 0.5])
    robot.close()
    peer.stop()


def test_a_ros_2_head_waits_for_its_pose_and_goes_on_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    said: Any = iter([[], [], [types.JointState(None, ["jaw", "neck"], [0.2, -0.2], [], [])]])  # type: ignore[arg-type]
    stamp = SimpleNamespace(source_timestamp=time.time_ns())
    robot: Any = Ros2Robot(joints("ros2"), "127.0.0.1", {"domain": "95"})

    def taken(_: object) -> list[Any]:
        states = next(said, [])
        for state in states:
            state.sample_info = stamp
        return states

    monkeypatch.setattr(robot, "_taken", taken)
    robot.open()
    np.testing.assert_allclose(robot.feedback(1.0).joints, [0.2, -0.2])
    monkeypatch.setattr(_ros, "FIRST_STATE_S", 0.02)
    robot.open()
    assert robot.feedback(1.0) is None
    robot.close()


def test_a_joint_that_reports_no_number_says_nothing_instead_of_neutral() -> None:
    calibration = joints("ros2")
    states = States(calibration, Split(calibration))
    states.hear(["jaw", "neck"], [float("nan"), 0.3], 1.0)
    assert states.feedback(1.0, 1.0) is None
    states.hear(["jaw"], [0.25], 1.1)
    seen = states.feedback(1.1, 1.1)
    assert seen is not None
    np.testing.assert_allclose(seen.shares, [0.5, 0.5])


@pytest.mark.parametrize(
    "message", [None, [], {"name": ["jaw"]}, {"name": None, "position": [1]}, {"name": ["jaw"], "position": [10**400]}]
)
def test_a_joint_state_that_is_none_loses_the_robot_aloud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: Any
) -> None:
    monkeypatch.setattr(_ros, "FIRST_STATE_S", 0.0)
    peer = RosbridgePeer(tmp_path)
    robot = RosbridgeRobot(joints("rosbridge"), parse("rosbridge", peer.address, 9090), "")
    robot.open()
    peer.wait(lambda: bool(peer.subscriptions))
    peer.publish("/joint_states", message)
    with pytest.raises(RobotLost, match="said what is not in its protocol"):
        until(lambda: robot.feedback(2.0))
    robot.close()
    peer.stop()


def test_a_dds_reader_that_fails_is_a_lost_robot(monkeypatch: pytest.MonkeyPatch) -> None:
    from cyclonedds.core import DDSException

    monkeypatch.setattr(_ros, "FIRST_STATE_S", 0.0)
    robot: Any = Ros2Robot(joints("ros2"), "127.0.0.1", {"domain": "94"})
    robot.open()

    def fails(**_: object) -> None:
        raise DDSException(DDSException.DDS_RETCODE_ERROR)

    robot._entities["states"] = SimpleNamespace(take=fails)
    with pytest.raises(RobotLost, match="robot ros2: DDS gave no joint states"):
        robot.feedback(1.0)
    robot.close()
