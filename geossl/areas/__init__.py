"""Areas that one can publish: samples drawn from a map, estimates from interpreted points, and yearly releases."""
