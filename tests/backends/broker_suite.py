"""What every driver that keeps messages itself does, call by call, on a clock that the test owns.

What a scenario of the conformance kit shows through the faces is not here. This is what no face can see: the answer to a single
call of a batch, when to look again, whom a call wakes, what an interrupt in the middle of it leaves, and times to the instant.

The test files of such drivers bring the `drivers` fixture and run `BrokerSuite` on their backend.
"""

from broker_delivery_rules import DeliveryRules
from broker_order_rules import OrderRules
from broker_settlement_rules import SettlementRules
from broker_source_rules import SourceRules
from broker_use_rules import UseRules
from broker_wake_rules import WakeRules


class BrokerSuite(DeliveryRules, SettlementRules, OrderRules, SourceRules, WakeRules, UseRules):
    """Needs the fixtures `clock` and `drivers`: a function that opens one more broker on the same namespace."""
