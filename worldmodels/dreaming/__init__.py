"""Dreams: episodes that a world model makes up, decision by decision.

`step` is one decision: what a state, an action and random numbers lead to. `starts` are the real
moments that dreams begin at, `rollout` drives a population of controllers, `gradient` climbs by
back-propagation, `backends` are faster ways through a rollout, and `settings` keeps beside an agent
how it was dreamed.
"""
