"""The catalogue: the behaviours that every backend owes, by stable id, one line each, under their guarantee.

A scenario carries the ids that it proves, and the report shows them. An id is owed on each face where a public call for it
exists. Ids that are not offered, and ids that need a fault of a server or a network, are listed here with the reason. There is
no other way for an id not to be executed.
"""

from __future__ import annotations

import enum
from typing import NamedTuple


class Fault(enum.Enum):
    """What a harness may do to a backend or to its users. A closed list: reports use these words."""

    PROCESS = "processes killed, stopped and forked"  #: of child processes that open the same URL
    REPLY = "lost replies"  #: the fault layer between core and driver
    PROXY = "a network proxy"  #: refuse, reset, black-hole, delay, cut, slice the connection
    RESTART = "a server restart"
    KILL = "a server kill"
    PAUSE = "a server pause"
    CLUSTER = "a cluster of servers"  #: nodes that can be stopped, partitioned, failed over
    SESSION = "a session ended by the server"
    DELETE = "a deletion behind our back"  #: of keys, nodes or queues, by another program
    SERVER_CLOCK = "a server clock that jumps"
    CREDENTIALS = "credentials that change"
    POWER = "a power loss"
    FULL = "a full disk or quota"
    COUNT = "a count of what the backend keeps"  #: `Harness.residue`: by default the holders, where they can be asked for
    FOREIGN = "what another program left"  #: where the backend keeps its own: a lock's record, an entry among the messages


#: Faults of a server or a network. A backend without a server does not owe the ids that need one.
SERVER_FAULTS = frozenset(Fault) - {Fault.PROCESS, Fault.REPLY, Fault.COUNT, Fault.FOREIGN}

#: What the kit does instead of a fault that it was not given the means for. Reports tell it beside "not exercised".
INSTEAD = {
    Fault.POWER: "processes and the server are killed with SIGKILL under load, and all that was answered is looked for "
    "afterwards (B65, B68); that a write is on the disk before the answer is the server's own setting",
    Fault.CLUSTER: "one server is killed, paused, cut off and restarted (L87 to L90, L94, B67, B68, B71)",
    Fault.SERVER_CLOCK: "the clocks of clients are set an hour off (L99)",
    Fault.FULL: "what is larger than the declared maximum is refused before it is sent (B02)",
    Fault.CREDENTIALS: "wrong addresses are told within the time of a connection (L111, B109)",
    Fault.SESSION: "a holder is stopped and killed for longer than its session (L67, L83)",
}


class Entry(NamedTuple):
    """One behaviour."""

    id: str
    text: str
    guarantee: str  #: the heading of its report

    @property
    def half(self) -> str:
        """`locks` or `broker`."""
        return "locks" if self.id.startswith("L") else "broker"


#: Ids for which there is no public call, and the reason that the report shows. Of two more ids a part is not: an upgrade
#: from shared to exclusive raises at once instead of waiting (L108), and there is no routing beside queues and topics (B16).
NOT_OFFERED = {
    "B45": "dead letters are an ordinary queue without retention of their own",
    "B50": "a scheduled message cannot be taken back",
    "B108": "transactions over several messages are not offered",
}

#: Ids that only a fault of a server or a network exercises, and that fault.
NEEDS_FAULT = {
    "L32": Fault.PROXY, "L33": Fault.DELETE, "L70": Fault.PROXY, "L85": Fault.SESSION, "L86": Fault.SESSION,
    "L87": Fault.RESTART, "L88": Fault.RESTART, "L89": Fault.KILL, "L90": Fault.PAUSE, "L94": Fault.PROXY,
    "L95": Fault.CLUSTER, "L96": Fault.PROXY, "L97": Fault.PROXY, "L98": Fault.CLUSTER, "L100": Fault.SERVER_CLOCK,
    "L101": Fault.PROXY, "L102": Fault.PROXY, "L103": Fault.CREDENTIALS, "L104": Fault.PROXY, "L120": Fault.FOREIGN,
    "L132": Fault.POWER,
    "B17": Fault.DELETE, "B60": Fault.RESTART, "B67": Fault.RESTART, "B68": Fault.KILL, "B69": Fault.POWER,
    "B70": Fault.CLUSTER, "B71": Fault.PROXY, "B72": Fault.PROXY, "B74": Fault.PROXY, "B76": Fault.PROXY,
    "B77": Fault.PROXY, "B78": Fault.PROXY, "B81": Fault.CLUSTER, "B82": Fault.FULL, "B83": Fault.CLUSTER,
    "B84": Fault.PROXY, "B85": Fault.CREDENTIALS, "B101": Fault.KILL, "B127": Fault.PROXY,
}  # fmt: skip

_LOCKS = """
# Locks: take, hold, let go
L01 acquire free lock gives a handle, backend-side peek says held; release makes it free
L02 non-blocking acquire of a held lock: not acquired, no exception, returns at once
L03 same object/owner acquiring again: declared reentrant or refused, never deadlock, never silently shared
L04 different names independent; second lock on one connection does not free the first
L05 acquire/release x10 back to back, each time excluded for others meanwhile
L06 context manager releases on normal exit, on exception, on cancellation; body exception not masked
L07 context manager whose acquire fails raises and never runs the body
L08 release inside the body then exit is harmless
L09 second release of the same handle: one documented outcome in every backend
L10 release by a non-owner refused, lock still held
L11 release of a never-held or unknown name: documented status
L12 stale handle released after a new holder took it: new holder unaffected
L13 handle exposes name, owner, token, acquired-at, effective lease
L14 owner id unique per acquire and never given by a caller; a caller-given label is validated and shown in holders
L15 is_locked / is_mine seen from another client and process
L16 force-break by another: breaker can take, old holder's release returns lost, new lock not broken
L17 sync and async faces give the same results on the same name, mixed holders
L18 lock state carries no residue after release (keys, nodes, sessions, watchers, rows counted)

# Locks: waiting and wake-up
L19 acquire(timeout) raises a typed timeout naming the lock; not before timeout, not later than timeout+tolerance
L20 timeout=0 tries exactly once; None waits for ever (checked by bounded probe)
L21 waiter gets the lock on release
L22 waiter gets the lock on expiry of an abandoned lease
L23 wake-up latency after release below declared bound (not one poll interval, not one lease)
L24 poll interval larger than the timeout does not overshoot the timeout
L25 negative, NaN, huge, wrong-type timeouts and leases rejected before I/O
L26 already-cancelled scope: cancelled, nothing taken
L27 cancelling a blocked waiter returns promptly
L28 cancelled/timed-out waiter leaves no contender node, queue entry, session, subscription
L29 cancel swept over every await point of acquire: afterwards the caller holds it or nobody does, the next is served
L30 cancelled head waiter does not strand the next (lost wake-up)
L31 release racing with waiter registration, 1000 jittered rounds: no missed wake-up
L32 notification lost (pub/sub connection cut while waiting): waiter still gets it within fallback bound
L33 lock node/key/dir deleted under a waiter: error or re-queue, not a hang
L34 same object usable again after a cancelled or failed acquire
L35 interrupted waiter's late grant is not auto-renewed for ever
L36 FIFO among waiters where fair=true
L37 dead/paused first waiter delays others by at most the declared bound
L38 no starvation: N contenders loop for T s, min share > declared fraction

# Locks: exclusion under contention
L39 100 tasks, one process, in-section counter never 2
L40 threads sharing one provider and one lock object
L41 processes x providers, unprotected read-sleep-write on a file/row: no lost update
L42 mixed workers over 2 locks incl. one short-lived worker
L43 300 contenders over 10 processes: all finish, bounded connections, no thundering herd beyond declared ops per grant
L44 churn: 10k names, flat count of server keys, client fds, tasks, RSS
L45 many locks held on one client at once; small pool does not deadlock
L46 opposite-order multi-lock acquire does not deadlock; all-or-nothing and rollback on failure
L47 random acquire/extend/release/cancel/crash history passes the checker

# Locks: leases and renewal
L48 expires without renewal, within lease+declared lag; other takes it
L49 does not expire early (lower bound)
L50 auto-renew keeps it over >= 3 leases with the loop busy
L51 renewal stops on release, on handle GC, on provider close
L52 extend sets a fresh full lease; test waits > original lease before asserting
L53 extend after release fails
L54 extend after expiry fails and does not resurrect, even if nobody took it
L55 extend by another owner fails
L56 superseded handle object refuses further use
L57 minimum-hold time honoured after early release where supported; then free at once
L58 sub-second and fractional leases not truncated
L59 lease below backend minimum: raised or effective lease reported
L60 remaining-ttl sane; heartbeat of an unheld lock is False
L61 renewal failing once (one dropped reply) is retried in time; failing for good raises loss before server expiry

# Locks: loss is noticed
L62 loss event fires when key/node removed or session/connection killed, within bound
L63 does not fire on normal release
L64 asked after the fact it is already set
L65 closing a monitored handle is safe
L66 release/extend after loss: typed LockLost, not success, not generic error
L67 SIGSTOP holder past lease, B acquires, SIGCONT: A.is_valid is false at first check, loss event within bound
L68 ... and A's release and extend cannot touch B's lock
L69 holder's event loop blocked past lease: same as L67 on resume
L70 server unreachable: holder declares loss no later than its local validity (lease - elapsed - drift)
L71 acquire that took longer than the lease is reported failed and undone
L72 VM-suspend style jump of boottime: loss noticed
L73 forked child neither renews, releases nor believes it owns the parent's lock

# Locks: fencing tokens
L74 token unique for its name, and strictly greater for each holder that excludes an earlier one
L75 ... across clients and processes under 100 contenders; real-time order agrees with token order
L76 ... after expiry, forced break, delete of key, lock-name GC and re-creation
L77 ... after server restart, FLUSHALL/data loss (or capability fencing=volatile declared) and after failover
L78 same token on re-entry and extend
L79 token is a non-negative int < 2^63, survives JSON; gaps allowed
L80 demo guarded resource rejects the older token in the L67 scenario

# Locks: crashes and faults
L81 handle GC'd without release is freed or renewal stops (documented)
L82 holder process exits without release: free within lease+lag
L83 holder killed -9: free within lease+lag, measured
L84 waiter killed -9: never granted, no ghost blocks the queue
L85 session expiry injected at holder: other gets it, old one learns
L86 session expiry at waiter: requeues or errors, no ghost entry
L87 server restart while held: preserved, or loss reported; never both holders
L88 server restart while waiting: waiter acquires or errors, no hang
L89 server down at acquire/release: typed connection error within op timeout, never a false success
L90 server SIGSTOPped / blackholed mid-op: op bounded
L91 reply lost after the create landed: client recognises own token or cleans it; caller never waits for itself
L92 reply lost on release: reported released (idempotent), not "not owner"
L93 reply lost on extend
L94 request lost before the server (cut upstream): clean retry or error, no half state
L95 quorum backends: minority down ok, majority down/hanging fails in time, partial grabs undone
L96 transient error on delete is retried until gone, also when the first fault hits cleanup
L97 broken pooled connection does not poison later locks
L98 failover loses async-replicated lock: declared (capability) and fencing still monotonic
L99 client wall clock +-1 h: no early loss, no over-hold
L100 server wall clock jump
L101 one-way partition each direction
L102 200 ms latency, 1-byte slices, 64 KiB/s
L103 credentials revoked while held; ACL error on create leaves nothing behind
L104 two faults in a row inside the reconnect backoff

# Locks: names, kinds, lifecycle
L105 names: empty, long, slashes, spaces, unicode, case variants, trailing dot, control chars: usable or typed error
L106 distinct names never collide after escaping/hashing/truncation; names are case-sensitive
L107 namespace/prefix isolates; parent path created, cleaned
L108 shared/exclusive: readers together, writer alone, a waiting writer blocks new readers, no upgrade
L109 semaphore: never > N, drain, crash returns permits, conflicting N rejected
L110 bad URL: unknown scheme, port, option, value, missing extra: one error each, no secret in any text
L111 wrong host/credentials: typed, within connect timeout
L112 undeclared feature raises Unsupported before I/O and capability says false
L113 close: idempotent, blocked waiters get Closed, held locks released or left per contract, use after close typed
L114 after close: no tasks, threads, fds, sockets, "never awaited"/"destroyed" warnings
L115 two event loops, thread hand-over, fork after connect, free-threaded build
L116 importing the core pulls in no backend client; state written by previous minor version still honoured

# Locks: left and called from where nobody expects it
L121 a with left in another thread, task or generator than it was entered in releases what it entered; several at once as well
L122 a release of unknown outcome ends the renewal: free after one ttl at the latest, for its own thread or task as well
L123 two releases at once are one: no error, no loss, no callback
L124 a forgotten possession with a callback ends within its ttl, without a collection
L125 what a callback or a listener raises, SystemExit included, silences no other
L126 a call out of the middle of another one of its thread: a release is done right after, else a typed error at once
L127 a call that nobody answers ends within its own time and one operation timeout
L128 a with cut off at any point of entering or leaving: nobody holds it, others get it soon
L129 many first users at once, where nobody has been: no error, never two inside, all get in
L130 a minimum hold outlives its provider's close and a body that fails; an eviction ends it, and what nobody was given has none
L131 a minimum hold outlives its holder's process, killed or ended, and ends on time

# Locks: a loss of power
L132 power loss at any moment: a grant that was told still excludes, a release that was told is not undone (optional)

# Locks: what is not ours
L120 a record that is not ours or is malformed: typed error for that name alone, shown as foreign, evictable, others unchanged
"""

_MESSAGES = """
# Messages: publish and deliver
B01 body, headers, id arrive equal; 100 messages = same set
B02 binary non-UTF8 body; empty body; body at declared max; max+1 typed error before send
B03 headers: weird keys/values (all ASCII, unicode, slashes), count limit; non-UTF8 rejected
B04 JSON / derived types / codec round trip
B05 caller id propagated, generated ids unique, correlation/content-type/timestamp kept
B06 publish returns only after the declared durability point
B07 batch: all delivered; partial failure names the failed entries; > max batch is chunked
B08 receive_batch returns what is there without waiting for a full batch; deadline honoured; late arrivals included
B09 serialisation error raises and enqueues nothing; None rejected
B10 receiver mutating the payload does not change the redelivery
B11 20 topics x 100 concurrently, no cross-talk; weird topic names
B12 two groups each get everything
B13 one group: sum over members = total, each exactly one member (no fault)
B14 new group start position: earliest/latest exactly as declared
B15 no subscriber at publish: kept or dropped as declared
B16 direct / fanout / topic routing; unroutable message errors or drops as declared
B17 missing topic/subscription: open ok, first use NotFound, inside 30 s
B18 topology declare idempotent; conflicting declare typed; queue deleted while running is re-declared or typed error
B19 50 consumers, 5000 messages, 50 publishers
B20 nothing from nowhere: every delivery was attempted by a publisher of this run

# Messages: settlement
B21 acked message not redelivered (wait > visibility)
B22 unacked redelivered after visibility, not before, within lag
B23 nack(requeue) redelivered promptly, many nacks in a row keep everything
B24 reject(no requeue): gone or dead-lettered as declared
B25 ack twice; ack then nack; nack then ack: ONE outcome everywhere
B26 ack after visibility expired: typed Stale, and the redelivered copy survives
B27 ack after reconnect/rebalance with an old tag never settles another message
B28 out-of-order acks 3,1,2 then crash: exactly the unacked come back (log brokers: declared window)
B29 partial batch failure: only failed ones return
B30 extend visibility holds it past the ORIGINAL lease; extend after expiry fails
B31 handler slower than lease with auto-extend: one delivery; without: redelivered
B32 handler exception = nack, attempts+1; BaseException/cancel = neither ack nor loss
B33 dropping an entry unsettled returns it
B34 attempt counter and redelivered flag right across consumers and restarts
B35 prefetch n: never > n unsettled per consumer, also after reconnect
B36 in ordered single-flight mode nothing new until settle
B37 one stuck message does not block others where unordered
B38 prefetched but unhandled messages return on close and on kill -9
B39 ack-prevents-redelivery holds across broker restart (acks durable)

# Messages: retry, delay, dead letters, priority
B40 max attempts exact (n, not n-1 or n+1)
B41 poison reaches dead letter exactly once with body, headers, reason, attempts, origin
B42 undecodable bytes take the same path, consumer lives on
B43 list / redrive dead letters, order kept, redriven once, unsupported is typed
B44 crash between dead-letter publish and ack: never lost, at most a same-id duplicate
B45 dead-letter retention / size bound
B46 retry backoff >= configured, grows, jitters, caps
B47 delayed delivery never early, late <= lag; delay > max typed
B48 delays independent: a long one does not hold a short one
B49 delayed and retry-scheduled messages survive broker and worker restart
B50 cancel a scheduled message where supported
B51 TTL: expired not delivered AND unexpired delivered (control)
B52 message TTL beats default; expiry to dead letter if declared
B53 priority honoured, incl. after requeue
B54 dedup by id inside window, accepted after, null id never
B55 requeue storm (nack loop) does not busy-spin past declared rate

# Messages: order
B56 one producer, one consumer FIFO over 1000
B57 per-key order with N consumers, 16 keys
B58 key order kept through nack/retry where strict; else documented
B59 one in-flight per key across consumers
B60 no order inversion or skip across reconnect, rebalance, restart (first deliveries)
B61 producer internal retry does not reorder

# Messages: nothing lost
B62 total-queue: drain to empty, every ok publish seen; final depth 0
B63 consumer kill -9 in handler: redelivered to a peer within lease+lag
B64 kill -9 after side effect, before ack: redelivered, flagged, attempts=2
B65 kill -9 right after ack returned: not redelivered
B66 consumer SIGSTOP past lease/session, peer handles, SIGCONT: zombie's ack is Stale
B67 broker graceful restart twice under load
B68 broker kill -9 under load, durable mode
B69 power loss at any moment: what was confirmed is there, no confirmed ack is undone, nothing is from nowhere (optional)
B70 cluster: stop 1, 2, all nodes, restart; counts equal
B71 connection cut while consumer idle: auto-resubscribe within bound, no duplicate subscription
B72 cut mid-request: message absent or once
B73 cut after apply, before confirm: caller sees Unknown; retry with the same id delivers once where dedup is claimed
B74 fetch reply lost: message returns after lease
B75 ack reply lost: no crash, no error storm, at most one redelivery
B76 publish timeout is Unknown, rejection is Failed; a Failed publish is never delivered
B77 blackhole 30 s (no RST): publish bounded, heartbeat notices, resumes
B78 latency, 1-byte slices, reorder, 1 Mbit
B79 member joins/leaves under flow: no loss, duplicates <= in-flight
B80 zombie after rebalance can neither ack nor fetch
B81 partition then heal (cluster): depth returns to 0
B82 full disk / memory alarm / quota: typed back-pressure, resumes
B83 failover to 2nd DSN host, back again
B84 two faults inside backoff; backoff jittered, capped, logged once per state change
B85 credentials rotated / token expired mid-run
B86 fault-free run: duplicates = 0 and deliveries after ok ack = 0, stated as numbers
B87 10k mixed run with random faults passes the history checker

# Messages: lifecycle and flow
B88 use after close typed; double close one outcome
B89 close with no users; stop before start; connect lazily
B90 close during publish, during blocked receive, with unread output: no deadlock
B91 close of one subscription leaves others and the connection alone
B92 10 concurrent closes, then still works
B93 graceful shutdown (API and SIGTERM): stop fetch, finish, ack, return prefetched, flush, exit 0 within grace
B94 grace exceeded: unfinished returned at once to peers
B95 publisher close flushes its buffer (test must close BEFORE reading)
B96 already-cancelled scope: no side effect
B97 cancel swept over every await point of receive: no message swallowed (comes back or is returned)
B98 cancel in-flight publish: Unknown, never half-state; connection still usable
B99 handler scope cancelled on ack/close; one failing subscriber does not stop others
B100 dynamic subscribe/unsubscribe; resume in mid-stream without loss
B101 health/ping true when up, false within bound when down
B102 stats/metrics equal ground truth; trace headers pass
B103 idle consumer: bounded wake-up latency, < x% CPU, no poll storm on server
B104 back-pressure: 100k backlog, slow consumer, flat memory
B105 1000 topics / 200 consumers on one process, bounded connections
B106 two brokers in one process do not mix
B107 request/reply timeout, late reply dropped, concurrent correlation
B108 transaction: publish+ack atomic, aborted invisible, no precommitted read
B109 bad DSN / credentials / unknown option / missing extra: as L110
B110 undeclared feature raises Unsupported before I/O
B111 no leaked tasks, threads, fds; two loops; fork; free-threaded
B112 previous-version messages readable; unknown future headers ignored
B113 throughput/latency benchmark emitted to the same JSON (never gating)

# Messages: what others leave and hold
B120 what another program leaves is delivered as it is or dies with its raw body and a reason; nobody else notices, it is told
B121 after a connection reset or rebalance nothing that others acked is handed to a handler; message.lost at once
B122 publish ends with a receipt, PublishFailed or PublishUnknown; a server that cannot be reached is PublishFailed
B123 a reply goes to an inbox of ours and nowhere else, unless ?reply_to=any
B124 one SIGTERM or SIGINT ends every running run of the process, on threads and on all loops
B125 signal handlers that were there, a loop's own too, are called and put back exactly
B126 many first users at once, where nobody has been: no error, and what they publish is there
B127 a broker that is closed while its server is silent waits for one operation timeout, whatever is under way
B134 a call that nobody answers ends within its own time and one operation timeout, whatever others call meanwhile

# Messages: a queue that exists changes
B128 what is altered counts for consumers that come, for those that run within alter_lag; no message is lost or released
B129 consumers of one queue have each their own limit and lease; who asks for none has what is stored, and nobody is refused
B130 an alter of what is not there is NotFound and makes nothing; one of order or priorities is refused before I/O
B131 sources() lists every queue, topic and subscription of its namespace, and nothing else

# Messages: how far a queue is behind
B132 depth().oldest is the age of the oldest ready message, from its publish or due time; what is not ready has none

# Messages: whose clock counts
B133 client wall clock +-1 h: no delivery comes back early, and none is kept for longer than its lease
"""


def _parse(text: str) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    guarantee = ""
    for line in text.strip().splitlines():
        if line.startswith("# "):
            guarantee = line[2:]
        elif line:
            id, _, rest = line.partition(" ")
            entries[id] = Entry(id, rest, guarantee)
    return entries


#: Every id, in the order of the catalogue.
CATALOGUE: dict[str, Entry] = {**_parse(_LOCKS), **_parse(_MESSAGES)}
