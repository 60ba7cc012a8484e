/*
A lease with a fencing token: what a holder may believe, and what a guarded resource lets in.

It stands for `src/narrowboat/_engine/validity.py` (until when a lease is ours), `src/narrowboat/_locks/acquire.py` (an attempt
that finds its own grant), and `src/narrowboat/fencing/` (what refuses a smaller token). It assumes: the server is one register
that loses nothing; a holder's clock never goes back, and over one lease it loses at most `drift` ticks against the server's; no
operator evicts; a request that its caller has given up is not carried out later (the withdraw race has a model of its own).
Requests, replies and writes take any time, and each of them may be lost. Any client may stand still between any two steps.

A line with `// guard NAME => TEXT` is replaced by TEXT where the runner asks whether the model notices.
*/
module lease
open util/ordering[Grant] as granting

fun ttl: Int { 2 }
fun margin: Int { 1 } // guard margin => fun margin: Int { 0 }
fun drift: Int { 1 } // guard drift => fun drift: Int { 2 }

sig Grant { token: Int, owner: Client }

sig Client {
  var lag: Int, -- ticks that its clock is behind
  var sent: lone Int, -- its clock, when the request that is under way was sent
  var answer: lone Grant, -- what the server has answered; the reply is under way
  var held: lone Grant,
  var deadline: lone Int -- on its clock
}

one sig Server { var now: Int, var granted: set Grant, var lease: lone Grant, var ends: lone Int }
one sig Guarded { var highest: lone Int, var accepted: lone Grant } -- a resource that refuses a smaller token
one sig Plain { var written: lone Grant } -- one that takes what comes
var sig Flying in Grant {} -- grants with a write under way

fun clock[c: Client]: Int { minus[Server.now, c.lag] }
pred live[c: Client] { some c.held and clock[c] < c.deadline }

pred init {
  Server.now = 0 and no Server.granted and no Server.lease and no Server.ends
  no Guarded.highest and no Guarded.accepted and no Plain.written and no Flying
  no sent and no answer and no held and no deadline
  all c: Client | c.lag >= 0 and c.lag <= drift
}

pred timeStands { Server.now' = Server.now and lag' = lag }
pred serverStands { granted' = granted and lease' = lease and ends' = ends }
pred beliefsStand { held' = held and deadline' = deadline }
pred nothingWritten { Flying' = Flying and highest' = highest and accepted' = accepted and written' = written }

pred tick {
  Server.now < 5 and Server.now' = plus[Server.now, 1]
  all c: Client {
    c.lag' >= 0 and c.lag' <= drift
    minus[Server.now', c.lag'] >= clock[c]
  }
  serverStands and beliefsStand and nothingWritten and sent' = sent and answer' = answer
}

pred send[c: Client] {
  no c.sent
  sent' = sent + c->clock[c]
  timeStands and serverStands and beliefsStand and nothingWritten and answer' = answer
}

-- A repeated attempt, or a renewal, of a holder whose lease runs starts it afresh; otherwise the lease must be over.
pred serve[c: Client] {
  some c.sent and no c.answer
  (some Server.lease and Server.lease.owner = c and Server.now < Server.ends) implies {
    granted' = granted and lease' = lease and answer' = answer + c->Server.lease
  } else {
    no Server.lease or Server.ends <= Server.now // guard exclusion =>
    let g = granting/min[Grant - Server.granted] {
      some g and g.owner = c
      all earlier: Server.granted | earlier.token < g.token // guard growing =>
      Server.granted' = Server.granted + g and Server.lease' = g and answer' = answer + c->g
    }
  }
  Server.ends' = plus[Server.now, ttl]
  timeStands and beliefsStand and nothingWritten and sent' = sent
}

pred hear[c: Client] {
  some c.answer
  held' = held ++ c->c.answer
  let from = c.sent | // guard before => let from = clock[c] |
    deadline' = deadline ++ c->minus[plus[from, ttl], margin]
  sent' = sent - c->Int and answer' = answer - c->Grant
  timeStands and serverStands and nothingWritten
}

pred miss[c: Client] { -- the request or its reply was lost, and the client knows nothing
  some c.sent
  sent' = sent - c->Int and answer' = answer - c->Grant
  timeStands and serverStands and beliefsStand and nothingWritten
}

pred release[c: Client] {
  some c.held and no c.sent
  held' = held - c->Grant and deadline' = deadline - c->Int
  Server.lease = c.held implies (no Server.lease' and no Server.ends' and granted' = granted) else serverStands
  timeStands and nothingWritten and sent' = sent and answer' = answer
}

pred write[c: Client] { -- it has looked, and is still the holder; the write takes its time
  live[c]
  Flying' = Flying + c.held
  highest' = highest and accepted' = accepted and written' = written
  timeStands and serverStands and beliefsStand and sent' = sent and answer' = answer
}

pred land[g: Grant] {
  g in Flying and Flying' = Flying - g
  Plain.written' = g
  let passes = {w: g | no Guarded.highest or w.token >= Guarded.highest} | // guard fence => let passes = g |
    some passes implies (Guarded.highest' = g.token and Guarded.accepted' = g) else (highest' = highest and accepted' = accepted)
  timeStands and serverStands and beliefsStand and sent' = sent and answer' = answer
}

pred still { timeStands and serverStands and beliefsStand and nothingWritten and sent' = sent and answer' = answer }

fact behaviour {
  init
  always (still or tick or (some g: Grant | land[g])
    or (some c: Client | send[c] or serve[c] or hear[c] or miss[c] or release[c] or write[c]))
}

-- No two clients believe at one moment that they hold it.
assert OneHolder { always lone c: Client | live[c] }
-- Who believes is who the server has, within the lease.
assert BeliefWithinLease { always all c: Client | live[c] implies (Server.lease = c.held and Server.now < Server.ends) }
-- What a guarded resource lets in never goes back to an earlier grant.
assert EffectsNeverGoBack { always (some Guarded.accepted implies Guarded.accepted' in Guarded.accepted.*granting/next) }
-- The same for a resource without a guard. This does not hold: a holder that stands still between its look and its write is
-- overtaken by its successor, whatever its clock says afterwards. No lease excludes it.
assert PlainEffectsNeverGoBack { always (some Plain.written implies Plain.written' in Plain.written.*granting/next) }

check OneHolder for 3 but exactly 2 Client, 3 Grant, 4 Int, 1..10 steps expect 0
check BeliefWithinLease for 3 but exactly 2 Client, 3 Grant, 4 Int, 1..10 steps expect 0
check EffectsNeverGoBack for 3 but exactly 2 Client, 3 Grant, 4 Int, 1..13 steps expect 0
check PlainEffectsNeverGoBack for 3 but exactly 2 Client, 3 Grant, 4 Int, 1..13 steps expect 1
-- The checks above are about something: two clients hold one after the other, and both write.
run BothWrite {
  some disj a, b: Grant | a.owner != b.owner and (eventually Guarded.accepted = a) and (eventually Guarded.accepted = b)
} for 3 but exactly 2 Client, 3 Grant, 4 Int, 1..13 steps expect 1
