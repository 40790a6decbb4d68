"""Gymnasium's CarRacing car, faster and equal to the last bit."""

from __future__ import annotations

import math
from collections import deque
from functools import cache

import Box2D
from gymnasium.envs.box2d.car_dynamics import (
    ENGINE_POWER,
    FRICTION_LIMIT,
    HULL_POLY1,
    HULL_POLY2,
    HULL_POLY3,
    HULL_POLY4,
    SIZE,
    WHEEL_COLOR,
    WHEEL_MOMENT_OF_INERTIA,
    WHEEL_R,
    WHEEL_W,
    WHEELPOS,
    Car,
)


@cache
def _car_fixtures() -> tuple[list, Box2D.b2FixtureDef]:
    """Return Box2D's definitions of the hull's four polygons and of a wheel.

    They are made once: a definition never frees its shape, so stock leaks 2.4 kB per new car.
    """

    def polygon(corners: list) -> Box2D.b2PolygonShape:
        return Box2D.b2PolygonShape(vertices=[(x * SIZE, y * SIZE) for x, y in corners])

    hull = [
        Box2D.b2FixtureDef(shape=polygon(corners), density=1.0)
        for corners in (HULL_POLY1, HULL_POLY2, HULL_POLY3, HULL_POLY4)
    ]
    corners = [(-WHEEL_W, WHEEL_R), (WHEEL_W, WHEEL_R), (WHEEL_W, -WHEEL_R), (-WHEEL_W, -WHEEL_R)]
    wheel = Box2D.b2FixtureDef(
        shape=polygon(corners),
        density=0.1,
        categoryBits=0x0020,
        maskBits=0x001,
        restitution=0.0,
    )
    return hull, wheel


class FastCar(Car):
    """Gymnasium's Car with its arithmetic on Python floats instead of NumPy scalars.

    Every operation is stock's, on the same double-precision numbers in the same order, so results
    are equal bit for bit. It saves np.clip, np.sign, np.sqrt and np.square on scalars, a second
    query of the wheel's orientation, and the conversions between them.
    """

    def __init__(self, world: Box2D.b2World, init_angle: float, init_x: float, init_y: float):
        # Stock's constructor, except for the shared fixture definitions.
        hull_fixtures, wheel_fixture = _car_fixtures()
        self.world = world
        self.hull = world.CreateDynamicBody(
            position=(init_x, init_y), angle=init_angle, fixtures=hull_fixtures
        )
        self.hull.color = (0.8, 0.0, 0.0)  # type: ignore[attr-defined]  # SWIG's class is open
        self.fuel_spent = 0.0
        self.wheels = []
        for x, y in WHEELPOS:
            wheel = world.CreateDynamicBody(
                position=(init_x + x * SIZE, init_y + y * SIZE),
                angle=init_angle,
                fixtures=wheel_fixture,
            )
            wheel.wheel_rad = WHEEL_R * SIZE
            wheel.color = WHEEL_COLOR
            wheel.gas = wheel.brake = wheel.steer = 0.0
            wheel.phase = 0.0  # rotation so far, radians
            wheel.omega = 0.0  # rotation speed, radians per second
            wheel.skid_start = wheel.skid_particle = None
            wheel.joint = world.CreateJoint(
                Box2D.b2RevoluteJointDef(
                    bodyA=self.hull,
                    bodyB=wheel,
                    localAnchorA=(x * SIZE, y * SIZE),
                    localAnchorB=(0, 0),
                    enableMotor=True,
                    enableLimit=True,
                    maxMotorTorque=180 * 900 * SIZE * SIZE,
                    motorSpeed=0,
                    lowerAngle=-0.4,
                    upperAngle=+0.4,
                )
            )
            wheel.tiles = set()
            wheel.userData = wheel
            self.wheels.append(wheel)
        self.drawlist = [*self.wheels, self.hull]
        self.particles = deque(maxlen=30)

    def align_wheels(self) -> None:
        """Move the wheels to their places on a car that does not face along the y axis.

        The constructor, like stock's, places them as if it did. The first time step would pull
        them into place, which throws a car with another direction off its course.
        """
        for wheel, (x, y) in zip(self.wheels, WHEELPOS, strict=True):
            wheel.position = self.hull.GetWorldPoint((x * SIZE, y * SIZE))

    def steer(self, s) -> None:
        super().steer(float(s))

    def gas(self, gas) -> None:
        gas = min(max(float(gas), 0.0), 1.0)
        for wheel in self.wheels[2:4]:
            wheel.gas += min(gas - wheel.gas, 0.1)  # gradually increase, but stop immediately

    def brake(self, b) -> None:
        super().brake(float(b))

    def step(self, dt: float) -> None:
        """Apply one time step's forces; see Car.step for the reasons behind each line."""
        for wheel in self.wheels:
            joint = wheel.joint
            error = wheel.steer - joint.angle
            joint.motorSpeed = _sign(error) * min(50.0 * abs(error), 3.0)

            grass = True
            friction_limit = FRICTION_LIMIT * 0.6
            for tile in wheel.tiles:
                friction_limit = max(friction_limit, FRICTION_LIMIT * tile.road_friction)
                grass = False

            # (cos, sin) of the wheel's angle in Box2D's single precision; the forward direction
            # is (-sin, cos).
            side = wheel.GetWorldVector((1, 0))
            cos, sin = side.x, side.y
            velocity = wheel.linearVelocity
            velocity_x, velocity_y = velocity.x, velocity.y
            forward_speed = -sin * velocity_x + cos * velocity_y
            side_speed = cos * velocity_x + sin * velocity_y

            omega = wheel.omega
            omega += dt * ENGINE_POWER * wheel.gas / WHEEL_MOMENT_OF_INERTIA / (abs(omega) + 5.0)
            self.fuel_spent += dt * ENGINE_POWER * wheel.gas
            brake = wheel.brake
            if brake >= 0.9:
                omega = 0.0
            elif brake > 0:
                omega += -_sign(omega) * min(15 * brake, abs(omega))
            wheel.phase += omega * dt

            forward_force = -forward_speed + omega * wheel.wheel_rad
            side_force = -side_speed
            forward_force *= 205000 * SIZE * SIZE
            side_force *= 205000 * SIZE * SIZE
            force = math.sqrt(forward_force * forward_force + side_force * side_force)

            if force > 2.0 * friction_limit:
                self._skid(wheel, grass)
            else:
                wheel.skid_start = None
                wheel.skid_particle = None

            if force > friction_limit:
                forward_force = forward_force / force * friction_limit
                side_force = side_force / force * friction_limit
            wheel.omega = omega - dt * forward_force * wheel.wheel_rad / WHEEL_MOMENT_OF_INERTIA
            wheel.ApplyForceToCenter(
                (
                    side_force * cos + forward_force * -sin,
                    side_force * sin + forward_force * cos,
                ),
                True,
            )

    def _skid(self, wheel, grass: bool) -> None:
        """Lengthen the wheel's skid mark or begin one; only render() shows them."""
        particle = wheel.skid_particle
        if particle and particle.grass == grass and len(particle.poly) < 30:
            particle.poly.append((wheel.position[0], wheel.position[1]))
        elif wheel.skid_start is None:
            wheel.skid_start = wheel.position
        else:
            wheel.skid_particle = self._create_particle(wheel.skid_start, wheel.position, grass)
            wheel.skid_start = None


def _sign(x: float) -> float:
    return (x > 0) - (x < 0)
