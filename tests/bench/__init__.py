"""The benchmark: `make bench`, or `python -m tests.bench --help`. How to read what it prints.

It prints a table, then one JSON line a figure: `value` with its `unit`; `bar` is what a release must reach,
`aim` what we would like, `better` says which direction is good, `ok` whether the bar is reached (null without
a bar). What was repeated has `runs`, `min` and `max`, and its median as value. `detail` holds the conditions.
The last line is the machine. Exit status 1: a bar was missed, or something could not be measured.

- Only a quiet machine gives figures worth keeping: look at `load_average_before` (below 0.5), at
  `generator_late_ms` (below 20, or the generator was starved, not the server) and at `datagrams_dropped` (0).
  One benchmark runs at a time; a second one is refused.
- "Clean": no failed call, no retransmission by the peers, every call heard both ways, nobody heard a third
  party. A rate or a number of talks that is not clean does not count, however fast it was.
- Core 0 has the server under test alone, core 1 the generators and the database. CPU figures are user and
  system time of the process tree from /proc, in ms a call or in percent of one core a talk. The kernel counts
  in ticks of 10 ms, so small loads (`--quick`) give coarse figures.
- The bare worker's figures (all whose name does not begin with `edge_`) are of one `careline worker` with its
  database writes; phones and SIPp stand where the edge would be. INVITE to 200 is timed by SIPp in steps of
  4 ms. Audio delay is mouth to ear between two RTP sockets by bursts in the audio: half a packet of waiting
  for the worker's clock, and its jitter buffer, belong to it.
- "end of key to clinician's INVITE" may be negative: the server acts while the key is still held.
- Memory "growth" compares the time after 5,000 calls with the end; a quick run has too few calls for that.

The figures `edge_…` are the same hotline as patients meet it: Kamailio, rtpengine, PostgreSQL, worker,
courier and FHIR server as `careline up` runs them, and real phones (pjsua2): clinicians by TLS with mandatory
SRTP, half of the callers by a plain trunk, half by TLS and SRTP. Without bars, beside the bare worker's:

- Any `faults` in the detail of `edge_bridges` (also printed at the end) make the run fail; its other figures
  then mean nothing. `phones_cpu_percent` near 100: the phones were the limit.
- INVITE to 200 is what the phone sees. By TLS it holds the challenge, a second INVITE, and about 40 ms that
  are the phone's own: pjsip leaves Nagle's algorithm on, so that its second INVITE waits for the delayed TCP
  ACK of the message before. The same account by UDP needs about 13 ms.
- CPU a talk at 30 is higher than the bare worker's at 200: clocks and timers that run anyway are shared by
  fewer. `edge_…_cpu_ms` is of callers of the menu beside the talks, the talks' CPU taken off.
- Audio delay is of plain RTP, as rtpload knows no SRTP: trunk, rtpengine, worker, rtpengine, trunk.
- PESQ and level are of recordings by the phones; their jitter buffers are part of them. Each way is in the
  detail: `srtp_to_caller` is a clinician's voice as a caller by SRTP hears it.
"""
