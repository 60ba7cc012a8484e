"""The conformance kit on RocketMQ: what has been seen to hold so far. The backend's page says what is not proven yet."""

from integration.conformance import conformance
from integration.rocketmq_harness import RocketHarness
from integration.servers import RocketMQServer

#: Each id of the core tier that has been seen to hold.
HELD = (
    *("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12", "B13", "B14", "B15"),
    *("B16", "B18", "B20", "B23", "B24", "B25", "B26", "B27", "B28", "B29", "B32", "B33", "B34", "B35", "B36", "B37", "B39"),
    *("B40", "B41", "B42", "B43", "B44", "B46", "B47", "B51", "B52", "B73", "B75", "B88", "B89", "B90", "B91", "B92", "B93"),
    *("B94", "B95", "B96", "B98", "B99", "B100", "B102", "B106", "B109", "B110", "B111", "B112", "B121", "B122", "B126"),
)
#: The kit makes many queues on one small broker: two topics each, and a file for each queue of a topic.
FEW = "queues=2"

test_rocketmq = conformance(RocketMQServer, harness=RocketHarness, only=HELD, tiers="C", query=FEW)
