"""The defences that `make mutants` takes away: each with the text that makes it, what stands there without it, and the
tests that must go red. When a defence moves, its row here moves with it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Defence:
    """One defence. `old` stands exactly once in `file`."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    vital: bool = False


LEDGER = "shared/banksman/ledger"
SQL = f"{LEDGER}/sql/0001_spine.sql"
VOTES_SQL = f"{LEDGER}/sql/0003_votes.sql"
WORKER = "services/agent_worker/banksman_worker"
GATEWAY = "services/approval_gateway/banksman_gateway"
NOTIFIER = "services/notifier/banksman_notifier"

RUNS = "tests/ledger/test_runs.py"
STARTS = "tests/ledger/test_executions.py"
ROLES = "tests/ledger/test_roles.py"
FLAT = "tests/ledger/test_flat.py"
LEASE = "tests/worker/test_lease.py"
JOURNAL = "tests/worker/test_journal.py"
DELEGATION = "tests/worker/test_delegation.py"
_HELD = "\n        WHERE id = %(id)s AND fence = %(fence)s AND status = 'running'"
FORGERY = "tests/worker/test_forgery.py"
HOLES = "tests/worker/test_holes.py"
SEGMENT = "tests/worker/test_segment.py"
TASKS = "tests/worker/test_tasks.py"
ONCE = "tests/gateway/test_at_once.py"
RULES = "tests/shared/test_rules.py"
SPELLINGS = "tests/shared/test_spellings.py"
RULEBOOK = "tests/worker/test_rulebook.py"
GRANTS = "tests/worker/test_grants.py"
REQUESTS = "tests/gateway/test_requests.py"
QUORUM = "tests/shared/test_quorum.py"
WITHDRAWALS = "tests/gateway/test_withdrawals.py"
STAND_INS = "tests/gateway/test_stand_ins.py"
REMARKS = "tests/gateway/test_remarks.py"
FAMILIES = "tests/gateway/test_families.py"
SWEEP = "tests/gateway/test_sweep.py"
SILENCE = "tests/gateway/test_silence.py"
PEOPLE = "tests/gateway/test_people.py"
LINKS = "tests/gateway/test_link_page.py"
PAGES = "tests/gateway/test_pages.py"
STORIES = "tests/model/test_stories.py"
DIGEST = "tests/shared/test_digest.py"
SIGNING = "tests/shared/test_signing.py"
WIRE = "tests/shared/test_wire.py"

DEFENCES = (
    # Runs: claims, fences, leases.
    Defence(
        "a run is claimed by one worker until its lease is over",
        f"{LEDGER}/runs.py",
        "(status = 'running' AND due_at < clock_timestamp())",
        "status = 'running'",
        (f"{RUNS}::test_of_two_claims_one_wins",),
        vital=True,
    ),
    Defence(
        "a claim is for the segment of now",
        f"{LEDGER}/runs.py",
        "          AND segment = %(segment)s\n",
        "",
        (f"{STORIES}::test_a_message_about_an_earlier_segment_claims_nothing",),
    ),
    Defence(
        "a run that is to stop is not claimed",
        f"{LEDGER}/runs.py",
        "          AND segment = %(segment)s\n          AND cancel_at IS NULL\n",
        "          AND segment = %(segment)s\n",
        (f"{STORIES}::test_a_run_that_is_to_stop_is_not_claimed_and_ends_with_its_lease",),
    ),
    Defence(
        "a claim has a fence of its own",
        f"{LEDGER}/runs.py",
        "        SET status = 'running',\n            fence = fence + 1,\n",
        "        SET status = 'running',\n",
        (f"{RUNS}::test_a_write_with_an_old_fence_changes_nothing",),
    ),
    Defence(
        "a run ends under the fence of now",
        f"{LEDGER}/runs.py",
        "            agent_version = %(version)s, output = %(output)s, usage = %(usage)s, error = NULL\n"
        "        WHERE id = %(id)s AND fence = %(fence)s AND",
        "            agent_version = %(version)s, output = %(output)s, usage = %(usage)s, error = NULL\n"
        "        WHERE id = %(id)s AND",
        (f"{RUNS}::test_a_write_with_an_old_fence_changes_nothing",),
        vital=True,
    ),
    Defence(
        "a run ends while its lease holds",
        f"{LEDGER}/runs.py",
        "            agent_version = %(version)s, output = %(output)s, usage = %(usage)s, error = NULL\n"
        "        WHERE id = %(id)s AND fence = %(fence)s AND status = 'running' AND due_at > clock_timestamp()\n",
        "            agent_version = %(version)s, output = %(output)s, usage = %(usage)s, error = NULL\n"
        "        WHERE id = %(id)s AND fence = %(fence)s AND status = 'running'\n",
        (f"{RUNS}::test_past_its_lease_a_worker_commits_nothing_even_before_another_takes_over",),
    ),
    Defence(
        "a run parks while its lease holds",
        f"{LEDGER}/runs.py",
        f"usage = %(usage)s{_HELD} AND due_at > clock_timestamp()\n          AND cancel_at IS NULL\n",
        f"usage = %(usage)s{_HELD}\n          AND cancel_at IS NULL\n",
        (f"{RUNS}::test_past_its_lease_a_worker_commits_nothing_even_before_another_takes_over",),
    ),
    Defence(
        "a run that is to stop does not park",
        f"{LEDGER}/runs.py",
        f"usage = %(usage)s{_HELD} AND due_at > clock_timestamp()\n          AND cancel_at IS NULL\n",
        f"usage = %(usage)s{_HELD} AND due_at > clock_timestamp()\n",
        (f"{HOLES}::test_a_cancel_is_not_lost_when_the_segment_parks",),
    ),
    Defence(
        "a run that is to stop does not finish",
        f"{LEDGER}/runs.py",
        f"error = NULL{_HELD} AND due_at > clock_timestamp()\n          AND cancel_at IS NULL\n",
        f"error = NULL{_HELD} AND due_at > clock_timestamp()\n",
        ("tests/worker/test_cancel.py::test_a_run_that_was_asked_to_stop_does_not_finish",),
    ),
    Defence(
        "a parent waits for its children",
        f"{LEDGER}/runs.py",
        "child.status NOT IN ('finished', 'failed', 'cancelled'))\n        RETURNING segment",
        "child.status IS NULL)\n        RETURNING segment",
        (f"{DELEGATION}::test_a_parent_waits_for_its_last_child",),
    ),
    Defence(
        "a child has its parent's requester",
        f"{LEDGER}/sql/0001_spine.sql",
        "BEFORE INSERT ON runs FOR EACH ROW EXECUTE",
        "BEFORE INSERT ON runs FOR EACH ROW WHEN (false) EXECUTE",
        (f"{DELEGATION}::test_a_worker_can_start_no_run_but_a_child_of_the_same_requester",),
    ),
    Defence(
        "what the model wrote is part of what is approved",
        "services/agent_worker/banksman_worker/gate.py",
        '"proposed": seen.proposed,',
        '"proposed": "",',
        (f"{FORGERY}::test_a_forgery_executes_nothing_and_is_told",),
    ),
    Defence(
        "a decision that cannot be verified is told",
        "services/agent_worker/banksman_worker/gate.py",
        "            if resolved.forged:\n",
        "            if False:\n",
        (f"{FORGERY}::test_a_forged_answer_reaches_no_agent",),
    ),
    Defence(
        "a run that is handed back begins no tool",
        "services/agent_worker/banksman_worker/journal.py",
        "if self.lease.stopped is not None:",
        "if False:",
        ("tests/worker/test_drain.py::test_a_run_that_is_handed_back_begins_no_tool",),
    ),
    Defence(
        "a tool under way keeps its run here",
        "services/agent_worker/banksman_worker/lease.py",
        'None if self.in_flight else self.stop("drained")',
        'self.stop("drained")',
        ("tests/worker/test_drain.py::test_a_run_whose_tool_is_under_way_is_not_handed_back",),
    ),
    Defence(
        "a body that put itself off does not run again",
        "services/agent_worker/banksman_worker/results.py",
        'last.outcome == "deferred" and effects in ("harmless", "idempotent")',
        'last.outcome == "deferred"',
        (f"{JOURNAL}::test_a_call_that_put_itself_off_does_not_run_its_body_again_after_a_crash",),
    ),
    Defence(
        "a snapshot is saved under the fence of now",
        f"{LEDGER}/snapshots.py",
        "WHERE id = %s AND fence = %s AND",
        "WHERE id = %s AND %s > 0 AND",
        (f"{RUNS}::test_a_write_with_an_old_fence_changes_nothing",),
    ),
    Defence(
        "a snapshot is saved while the lease holds",
        f"{LEDGER}/snapshots.py",
        " AND status = 'running' AND due_at > clock_timestamp()\n",
        " AND status = 'running'\n",
        (f"{RUNS}::test_past_its_lease_a_worker_commits_nothing_even_before_another_takes_over",),
    ),
    Defence(
        "a heartbeat passes over rows in others' hands",
        f"{LEDGER}/runs.py",
        "FOR NO KEY UPDATE OF runs SKIP LOCKED",
        "FOR NO KEY UPDATE OF runs",
        (f"{LEASE}::test_one_row_in_others_hands_costs_no_other_run_its_lease",),
    ),
    Defence(
        "a heartbeat that comes late revives nothing",
        f"{LEDGER}/runs.py",
        "USING (id, fence) WHERE status = 'running' AND due_at > clock_timestamp()\n",
        "USING (id, fence) WHERE status = 'running'\n",
        (f"{STORIES}::test_past_its_lease_a_heartbeat_revives_nothing",),
    ),
    Defence(
        "the dispatcher takes only what is due",
        f"{LEDGER}/runs.py",
        "WHERE status IN ('queued', 'running') AND due_at <= statement_timestamp() AND cancel_at IS NULL",
        "WHERE status IN ('queued', 'running') AND cancel_at IS NULL",
        (f"{STORIES}::test_the_dispatcher_leaves_alone_what_is_not_due",),
    ),
    Defence(
        "attempts are bounded",
        f"{LEDGER}/runs.py",
        "SET status = CASE WHEN attempts >= %(max)s THEN 'stuck' ELSE 'queued' END,",
        "SET status = CASE WHEN attempts >= %(max)s + 9 THEN 'stuck' ELSE 'queued' END,",
        (f"{LEASE}::test_a_run_that_always_breaks_is_stuck_with_its_last_error_until_a_person_tries_it_again",),
    ),
    Defence(
        "a run waits while anything is open",
        f"{LEDGER}/runs.py",
        "          AND NOT EXISTS (SELECT FROM requests WHERE run_id = %(id)s AND state = 'open')\n",
        "",
        (f"{REQUESTS}::test_a_run_waits_for_the_last_of_its_requests",),
        vital=True,
    ),
    Defence(
        "nobody claims a run of a paused agent",
        f"{LEDGER}/runs.py",
        "          AND NOT EXISTS (SELECT FROM agents WHERE name = runs.agent AND paused_at IS NOT NULL)\n",
        "",
        ("tests/ledger/test_pause.py::test_no_worker_claims_a_run_of_a_paused_agent_until_it_is_resumed",),
    ),
    # The journal's statements.
    Defence(
        "a tool starts under the fence of now",
        f"{LEDGER}/executions.py",
        "              AND fence = %(fence)s\n",
        "",
        (f"{STARTS}::test_nothing_starts_under_another_fence",),
    ),
    Defence(
        "a tool starts while the lease holds",
        f"{LEDGER}/executions.py",
        "              AND due_at > clock_timestamp()\n",
        "",
        (f"{STARTS}::test_nothing_starts_once_this_has_happened",),
        vital=True,
    ),
    Defence(
        "a run that is to stop starts no tool",
        f"{LEDGER}/executions.py",
        "              AND cancel_at IS NULL\n",
        "",
        (f"{STARTS}::test_nothing_starts_once_this_has_happened",),
    ),
    Defence(
        "a tool starts only for a run under way",
        f"{LEDGER}/executions.py",
        "              AND status = 'running'\n",
        "",
        (f"{STARTS}::test_nothing_starts_once_this_has_happened",),
    ),
    Defence(
        "a tool starts only while its approval stands",
        f"{LEDGER}/executions.py",
        " AND run_id = %(run)s AND state = 'approved'))",
        " AND run_id = %(run)s))",
        (f"{STARTS}::test_nothing_starts_once_this_has_happened",),
    ),
    Defence(
        "an approval is good for its own run",
        f"{LEDGER}/executions.py",
        "WHERE id = %(request)s AND run_id = %(run)s AND state",
        "WHERE id = %(request)s AND state",
        (f"{STARTS}::test_nothing_starts_after_its_time_or_under_the_request_of_another_run",),
    ),
    Defence(
        "an approval says until when a tool may start",
        f"{LEDGER}/executions.py",
        "%(start_by)s::timestamptz > clock_timestamp()",
        "true",
        (f"{STARTS}::test_nothing_starts_after_its_time_or_under_the_request_of_another_run",),
    ),
    Defence(
        "voters are in good standing when the tool starts",
        f"{LEDGER}/executions.py",
        "WHERE disabled_at IS NULL AND role = ANY(roles))",
        "WHERE true)",
        (f"{STARTS}::test_nothing_starts_once_this_has_happened",),
        vital=True,
    ),
    Defence(
        "only the attempt that started a tool says how it ended",
        f"{LEDGER}/executions.py",
        "AND attempt = %s AND fence = %s AND state = 'started'",
        "AND attempt = %s AND %s > 0 AND state = 'started'",
        (f"{STARTS}::test_only_the_attempt_that_started_a_call_says_how_it_ended_and_once",),
    ),
    Defence(
        "a result is never written over",
        f"{LEDGER}/executions.py",
        "AND fence = %s AND state = 'started'",
        "AND fence = %s",
        (f"{STARTS}::test_only_the_attempt_that_started_a_call_says_how_it_ended_and_once",),
    ),
    # Requests, votes, decisions.
    Defence(
        "who decides holds the run's row",
        f"{LEDGER}/requests.py",
        "WHERE id = (SELECT run_id FROM requests WHERE id = %s) FOR UPDATE",
        "WHERE id = (SELECT run_id FROM requests WHERE id = %s)",
        (f"{ONCE}::test_two_last_votes_at_once_on_two_requests_of_one_run_always_resume_it_once",),
        vital=True,
    ),
    Defence(
        "a request is settled once",
        f"{LEDGER}/decisions.py",
        "WHERE id = %(id)s AND state = 'open' AND revision = %(revision)s",
        "WHERE id = %(id)s AND revision = %(revision)s",
        (f"{STARTS}::test_a_decision_that_comes_second_is_not_written",),
    ),
    Defence(
        "one person has one vote",
        f"{LEDGER}/votes.py",
        "COALESCE(person_id, key_id), replaces) DO NOTHING",
        "COALESCE(person_id, key_id), replaces) DO UPDATE SET channel = EXCLUDED.channel",
        (f"{REQUESTS}::test_one_person_has_one_vote",),
    ),
    Defence(
        "what is settled does not expire",
        f"{LEDGER}/silence.py",
        "WHERE id = %s AND state = 'open' AND expires_at <= clock_timestamp()",
        "WHERE id = %s AND expires_at <= clock_timestamp()",
        (f"{STARTS}::test_what_is_settled_does_not_expire",),
    ),
    Defence(
        "due requests are found by their index",
        f"{LEDGER}/silence.py",
        "WHERE state = 'open' AND due_at <= statement_timestamp()",
        "WHERE state = 'open' AND due_at <= clock_timestamp()",
        (FLAT,),
    ),
    Defence(
        "a vote past the deadline is too late",
        f"{GATEWAY}/decide.py",
        "if request.state is not RequestState.OPEN or request.overdue:",
        "if request.state is not RequestState.OPEN:",
        (f"{SWEEP}::test_a_vote_after_the_deadline_is_too_late_even_before_the_sweep",),
    ),
    Defence(
        "a vote is on what was shown",
        f"{GATEWAY}/decide.py",
        "    if ballot.revision == request.revision and ballot.digest == request.digest:\n",
        "    if ballot.revision == request.revision:\n",
        (f"{SEGMENT}::test_what_was_shown_must_be_what_is_asked",),
        vital=True,
    ),
    Defence(
        "a vote is on the revision of now",
        f"{GATEWAY}/decide.py",
        "    if ballot.revision == request.revision and ballot.digest == request.digest:\n",
        "    if ballot.digest == request.digest:\n",
        (f"{REQUESTS}::test_a_vote_on_something_else_is_told_what_changed",),
    ),
    Defence(
        "the requester does not decide",
        f"{GATEWAY}/voters.py",
        "if request.kind in (Kind.APPROVAL, Kind.OUTCOME) and request.asked_by(who.person):",
        "if request.kind is Kind.OUTCOME and request.asked_by(who.person):",
        (f"{REQUESTS}::test_the_requester_does_not_decide",),
        vital=True,
    ),
    Defence(
        "a disabled person does not vote",
        "shared/banksman/quorum.py",
        "    if person.disabled:\n        return frozenset()\n",
        "",
        (f"{STORIES}::test_a_disabled_person_does_not_vote_and_did_not",),
    ),
    Defence(
        "a vote of somebody disabled since does not count",
        f"{GATEWAY}/voters.py",
        " hindrance(request, request.requirement, known[person_id], item.channel) is None\n        and",
        "",
        (f"{STORIES}::test_a_disabled_person_does_not_vote_and_did_not",),
    ),
    Defence(
        "at tier high the editor does not count",
        f"{GATEWAY}/voters.py",
        "not (request.tier is Tier.HIGH and person_id == request.author_id)",
        "True",
        (f"{STORIES}::test_who_edited_a_call_at_tier_high_does_not_count_for_it",),
    ),
    Defence(
        "a decision takes as many people as it needs",
        "shared/banksman/quorum.py",
        "len(agreed) < requirement.approvals",
        "len(agreed) < 1",
        (f"{ONCE}::test_of_fifty_votes_at_once_a_quorum_takes_as_many_as_it_needs",),
        vital=True,
    ),
    Defence(
        "one person fills one place",
        "shared/banksman/quorum.py",
        "for size in range(1, len(requirement.groups) + 1)",
        "for size in (1,)",
        (QUORUM,),
    ),
    Defence(
        "a token does not reach tier high",
        f"{GATEWAY}/voters.py",
        '    Tier.HIGH: frozenset({"session"}),',
        '    Tier.HIGH: frozenset({"session", "token"}),',
        (f"{REQUESTS}::test_tier_high_is_not_reached_by_a_token",),
    ),
    Defence(
        "a link does not reach tier medium",
        f"{GATEWAY}/voters.py",
        '    Tier.MEDIUM: frozenset({"session", "token"}),',
        '    Tier.MEDIUM: frozenset({"session", "token", "link"}),',
        (f"{REQUESTS}::test_a_link_by_itself_does_not_decide_above_tier_low",),
    ),
    Defence(
        "no key votes",
        f"{GATEWAY}/decide.py",
        "if answers and request.kind is Kind.EXTERNAL and ballot.verdict is Verdict.ANSWER:",
        "if answers:",
        (f"{REQUESTS}::test_no_key_votes_and_a_key_answers_external_work_alone",),
    ),
    Defence(
        "a stored request is what its digest says",
        f"{GATEWAY}/decide.py",
        "    if digest.of_action(action) != request.digest:\n",
        "    if False:\n",
        (f"{REQUESTS}::test_a_stored_request_that_is_not_what_its_digest_says_is_not_decided",),
    ),
    Defence(
        "a requirement is the one under the digest",
        f"{GATEWAY}/decide.py",
        'if action["requirement"] != request.requirement.as_json() or',
        "if",
        (f"{REQUESTS}::test_a_stored_request_that_is_not_what_its_digest_says_is_not_decided",),
    ),
    Defence(
        "only votes with the gateway's mark count",
        f"{GATEWAY}/decide.py",
        "return [item for item in found if is_genuine(item, marks) and not is_withdrawn(item, marks)]",
        "return [item for item in found if not is_withdrawn(item, marks)]",
        (f"{FORGERY}::test_a_vote_that_was_not_cast_here_does_not_count",),
    ),
    Defence(
        "a vote that was taken back does not count",
        f"{GATEWAY}/decide.py",
        "return [item for item in found if is_genuine(item, marks) and not is_withdrawn(item, marks)]",
        "return [item for item in found if is_genuine(item, marks)]",
        (f"{WITHDRAWALS}::test_a_vote_that_was_taken_back_does_not_count",),
        vital=True,
    ),
    Defence(
        "only the gateway's mark takes a vote back",
        f"{GATEWAY}/decide.py",
        "return any(marks.mark_holds(mark, item.id, withdrawing(item)) for mark in item.withdrawals)",
        "return bool(item.withdrawals)",
        (f"{WITHDRAWALS}::test_a_withdrawal_that_was_not_made_here_takes_nothing_back_and_is_told",),
    ),
    Defence(
        "a withdrawal's mark is for its own vote and no vote's mark",
        f"{GATEWAY}/decide.py",
        'return {**_marked(item), "withdrawn": True}',
        "return _marked(item)",
        (f"{WITHDRAWALS}::test_what_a_mark_says_cannot_be_moved_to_another_vote",),
    ),
    Defence(
        "a vote is taken back behind the run's row",
        f"{GATEWAY}/withdraw.py",
        "request = requests.hold(conn, request_id)",
        "request = requests.get(conn, request_id)",
        (f"{ONCE}::test_of_fifty_people_who_vote_and_take_it_back_at_once_no_decision_counts_what_was_taken_back",),
        vital=True,
    ),
    Defence(
        "a person takes back their own vote",
        f"{GATEWAY}/withdraw.py",
        "        if item.person_id == person.id\n        and ",
        "        if ",
        (f"{WITHDRAWALS}::test_nobody_takes_back_what_is_decided_or_what_another_said",),
    ),
    Defence(
        "a vote stands in place of one that was taken back",
        VOTES_SQL,
        "        JOIN withdrawals ON vote_id = id\n",
        "",
        (f"{WITHDRAWALS}::test_the_schema_itself_keeps_two_standing_votes_of_one_person_out",),
    ),
    Defence(
        "one vote is enough only where there is one place",
        f"{GATEWAY}/voters.py",
        " and len(needed.groups) < 2 and most < 2",
        "",
        (f"{WITHDRAWALS}::test_where_one_vote_is_enough_it_must_still_fill_every_place",),
        vital=True,
    ),
    Defence(
        "whoever has voted lends nothing",
        f"{GATEWAY}/stand_ins.py",
        "absent.id not in voted and ",
        "",
        (f"{STAND_INS}::test_whoever_is_away_and_votes_all_the_same_lends_nothing_there",),
        vital=True,
    ),
    Defence(
        "nothing is lent on the run of whoever is away",
        f"{GATEWAY}/stand_ins.py",
        "return not edited and not request.asked_by(absent)",
        "return not edited",
        (f"{STAND_INS}::test_nothing_is_lent_on_a_run_that_one_of_the_two_asked_for",),
        vital=True,
    ),
    Defence(
        "nothing is lent on the run of whoever stands in",
        f"{GATEWAY}/stand_ins.py",
        "if quorum.REVIEWERS not in own or request.asked_by(person):",
        "if quorum.REVIEWERS not in own:",
        (f"{STAND_INS}::test_nothing_is_lent_on_a_run_that_one_of_the_two_asked_for",),
    ),
    Defence(
        "who stands in is a reviewer",
        f"{GATEWAY}/stand_ins.py",
        "if quorum.REVIEWERS not in own or request.asked_by(person):",
        "if request.asked_by(person):",
        (f"{STAND_INS}::test_nothing_is_lent_once_this_has_happened",),
    ),
    Defence(
        "at tier high the editor lends nothing",
        f"{GATEWAY}/stand_ins.py",
        "return not edited and not",
        "return not",
        (f"{STAND_INS}::test_at_tier_high_the_editor_lends_nothing_either",),
    ),
    Defence(
        "the role of administrators is not lent",
        f"{GATEWAY}/stand_ins.py",
        " - own - {quorum.ADMINS}",
        " - own",
        (f"{STAND_INS}::test_a_role_is_never_lent",),
    ),
    Defence(
        "an absence lends while it lasts",
        VOTES_SQL,
        "WHERE away.from_at <= clock_timestamp() AND clock_timestamp() < away.until_at\n  AND away.ended_at IS NULL\n",
        "WHERE away.ended_at IS NULL\n",
        (f"{STAND_INS}::test_nothing_is_lent_once_this_has_happened",),
        vital=True,
    ),
    Defence(
        "an absence that was ended lends nothing",
        VOTES_SQL,
        "  AND away.ended_at IS NULL\n",
        "",
        (f"{STAND_INS}::test_an_absence_that_ended_lends_nothing_more",),
    ),
    Defence(
        "nobody lends to two",
        VOTES_SQL,
        "        AND before.id < away.id\n",
        "        AND before.id < away.id AND false\n",
        (f"{STAND_INS}::test_nobody_lends_to_two",),
    ),
    Defence(
        "somebody disabled lends nothing",
        VOTES_SQL,
        "  AND people.disabled_at IS NULL\n  AND 'reviewer' = ANY (people.roles)\n",
        "",
        (f"{STAND_INS}::test_nothing_is_lent_once_this_has_happened",),
    ),
    Defence(
        "who denies and stops stops the whole family",
        f"{GATEWAY}/decide.py",
        "[families.root(conn, request.run_id), request.run_id]",
        "[request.run_id]",
        (f"{FAMILIES}::test_who_denies_in_a_child_run_and_stops_stops_the_whole_family",),
    ),
    Defence(
        "a vote that stops a family holds it from the top",
        f"{GATEWAY}/decide.py",
        "        families.hold_whole(conn, request_id)\n",
        "        pass\n",
        (f"{FAMILIES}::test_a_vote_that_stops_a_family_takes_the_ancestor_first",),
    ),
    Defence(
        "strangers write no remarks",
        f"{GATEWAY}/remarks.py",
        "    if not quorum.standing(person) and not request.asked_by(person):\n",
        "    if False:\n",
        (f"{REMARKS}::test_strangers_machines_and_latecomers_write_nothing",),
    ),
    Defence(
        "an edit fits the tool's schema",
        f"{GATEWAY}/edits.py",
        "    must_match_schema(conn, request, checked)\n    edited",
        "    edited",
        (f"{REQUESTS}::test_an_edit_is_a_patch_and_a_new_revision",),
    ),
    # The worker: gate, journal, leases.
    Defence(
        "a tool of unknown effect is asked about",
        "shared/banksman/policy.py",
        '    return _ask(policy, call, "unknown-effects",',
        '    return Judgement("allow", "", "") or _ask(policy, call, "unknown-effects",',
        (f"{SEGMENT}::test_a_mixed_turn_runs_harmless_calls_at_once_and_the_rest_in_the_models_order",),
    ),
    Defence(
        "what its author flags is asked about",
        f"{WORKER}/gate.py",
        'flagged = tool.kind == "unapproved" or tool.name in self.loaded.flagged',
        "flagged = False",
        (f"{SEGMENT}::test_a_harmless_tool_that_its_author_flags_is_asked_about",),
    ),
    Defence(
        "argument text is read strictly",
        f"{WORKER}/leash.py",
        "        self.gate.read_strictly(tool_def.name, args)\n",
        "",
        ("tests/worker/test_openai_wire.py::test_nor_does_a_tool_that_nobody_is_asked_about_run_with_such_text",),
    ),
    Defence(
        "arguments survive JSON unchanged",
        f"{WORKER}/gate.py",
        "        if not same:\n",
        "        if False:\n",
        (f"{HOLES}::test_a_validator_that_would_change_the_arguments_again_is_refused",),
    ),
    Defence(
        "what runs is what was approved",
        f"{WORKER}/gate.py",
        'if found.hex() != resolved.statement["digest"]:',
        "if False:",
        ("tests/worker/test_drift.py::test_a_change_under_a_parked_call_is_asked_again_with_the_difference",),
        vital=True,
    ),
    Defence(
        "an approval counts as long as it would do today",
        f"{WORKER}/gate.py",
        "        self._hold_to_today(seen, resolved, requirement)\n",
        "",
        ("tests/worker/test_drift.py::test_only_a_stricter_policy_voids_a_decision",),
    ),
    Defence(
        "one run asks for so much and no more",
        f"{WORKER}/gate.py",
        "        if len(self.drafts) >= MAX_OPEN:\n",
        "        if False:\n",
        (f"{SEGMENT}::test_more_than_twenty_calls_in_one_turn_go_back_to_the_model",),
    ),
    Defence(
        "the arguments that reach a tool are those the gate saw",
        f"{WORKER}/journal.py",
        "        if digest.canonical(to_jsonable_python(arguments)) != digest.canonical(cleared.arguments):\n",
        "        if False:\n",
        (f"{HOLES}::test_arguments_changed_behind_the_gate_do_not_run",),
    ),
    Defence(
        "a call in doubt waits for a person",
        f"{WORKER}/journal.py",
        "            return None\n        raise self.gate.doubt(key)",
        "            return None\n        return None",
        (f"{STORIES}::test_every_beginning_is_as_expected",),
        vital=True,
    ),
    Defence(
        "one rerun for each word of a person",
        f"{WORKER}/journal.py",
        "if last.request_id != cleared.request_id:",
        "if True:",
        (f"{STORIES}::test_each_word_of_a_person_reruns_a_call_once",),
    ),
    Defence(
        "a finished call is not repeated",
        f"{WORKER}/journal.py",
        '        if last.state == "finished":\n',
        "        if False:\n",
        (f"{STORIES}::test_a_finished_call_is_replayed_to_whoever_takes_over",),
    ),
    Defence(
        "a decision is read afresh and is for this action",
        f"{WORKER}/journal.py",
        "if any(statement.get(name) != value for name, value in expected.items()):",
        "if False:",
        (f"{STARTS}::test_a_signed_decision_that_says_something_else_starts_nothing",),
    ),
    Defence(
        "a decision has as many voters as it required",
        f"{WORKER}/journal.py",
        'if len(said) < statement["requirement"]["approvals"]:',
        "if False:",
        (f"{STARTS}::test_a_signed_decision_that_says_something_else_starts_nothing",),
    ),
    Defence(
        "a decision belongs to its own request",
        f"{WORKER}/resuming.py",
        '        if statement["request"] != ids.show("req", settled.request_id):\n',
        "        if False:\n",
        (f"{FORGERY}::test_a_decision_is_good_for_its_own_request_alone",),
    ),
    Defence(
        "a denial stays one",
        f"{WORKER}/resuming.py",
        ' or statement["verdict"] != settled.state.value:',
        ":",
        (f"{FORGERY}::test_a_denial_cannot_be_turned_into_an_approval",),
    ),
    Defence(
        "a lease is given up in time while PostgreSQL hangs",
        f"{WORKER}/lease.py",
        '                    lease.stop("lost")\n\n',
        "                    pass\n\n",
        (f"{LEASE}::test_without_postgresql_a_conversation_ends_before_its_lease_does",),
    ),
    Defence(
        "a stuck loop gives its runs up",
        f"{WORKER}/lease.py",
        "if started - self._loop.last_tick > self._lease.total_seconds():",
        "if False:",
        (f"{LEASE}::test_a_loop_that_is_stuck_for_longer_gives_its_runs_up_and_says_so",),
    ),
    Defence(
        "a result is stored however long PostgreSQL is away",
        f"{WORKER}/journal.py",
        "                await asyncio.sleep(delay)\n                delay = min(delay * 2, 5.0)",
        "                return",
        (f"{LEASE}::test_a_result_that_cannot_be_stored_is_tried_again_until_it_is",),
    ),
    # Digests, signatures, links, codes.
    Defence(
        "no key stands twice in an object",
        "shared/banksman/digest.py",
        "        if key in found:\n",
        "        if False:\n",
        (DIGEST,),
    ),
    Defence(
        "no integer that readers round differently",
        "shared/banksman/digest.py",
        "            if abs(value) > MAX_INTEGER:\n",
        "            if False:\n",
        (DIGEST,),
    ),
    Defence(
        "no NaN",
        "shared/banksman/digest.py",
        "return None if math.isfinite(value) else",
        "return None if True else",
        (DIGEST,),
    ),
    Defence(
        "no lone surrogate",
        "shared/banksman/digest.py",
        'return "holds a lone surrogate." if _SURROGATE.search(value) else None',
        "return None",
        (DIGEST,),
    ),
    Defence("nesting is bounded", "shared/banksman/digest.py", "if depth > MAX_DEPTH:", "if False:", (DIGEST,)),
    Defence("size is bounded", "shared/banksman/digest.py", "    if len(raw) > limit:\n", "    if False:\n", (DIGEST,)),
    Defence(
        "a digest has a purpose of its own",
        "shared/banksman/digest.py",
        "hashlib.sha256(_ACTION + canonical(action))",
        "hashlib.sha256(canonical(action))",
        (DIGEST,),
    ),
    Defence(
        "a revoked key signs nothing",
        "shared/banksman/signing.py",
        '        if status == "revoked":\n',
        "        if False:\n",
        (SIGNING,),
    ),
    Defence(
        "a grant counts only once its signature holds",
        "shared/banksman/grants.py",
        '    said = verifier.verify(stored.signed, "grant")\n',
        '    said = __import__("json").loads(stored.signed.statement)\n',
        (GRANTS,),
        vital=True,
    ),
    Defence(
        "a grant is used no more often than was signed",
        f"{LEDGER}/grants.py",
        "              AND used < LEAST(most, %(most)s) AND LEAST",
        "              AND %(most)s > 0 AND LEAST",
        (GRANTS,),
        vital=True,
    ),
    Defence(
        "a grant's use is counted in the transaction that starts the call",
        f"{WORKER}/journal.py",
        "            if cleared.grant is not None and (why := granting.spend(conn, cleared.grant)) is not None:\n",
        '            if (why := "") and cleared.grant:\n',
        (GRANTS,),
    ),
    Defence(
        "a grant is for the same call",
        f"{WORKER}/granting.py",
        "            if grant is not None and not fits(grant, call):\n",
        "            if False:\n",
        (GRANTS,),
    ),
    Defence(
        "a grant is good at tier low only",
        f"{WORKER}/granting.py",
        " or asked.tier is not Tier.LOW:\n",
        ":\n",
        (GRANTS,),
    ),
    Defence(
        "a grant's owner may decide still",
        f"{WORKER}/granting.py",
        "    if not entitled or not quorum.met(",
        "    if False and not quorum.met(",
        (GRANTS,),
    ),
    Defence(
        "nobody grants what they may not decide",
        f"{GATEWAY}/grants.py",
        '    if (why := voters.hindrance(request, requirement, person, "token")) is not None:\n',
        '    if why := "":\n',
        (GRANTS,),
    ),
    Defence(
        "a policy's signature is verified as a policy's",
        "shared/banksman/standing_policy.py",
        '    said = verifier.verify(signed, "policy")\n',
        '    said = __import__("json").loads(signed.statement)\n',
        (RULEBOOK,),
        vital=True,
    ),
    Defence(
        "a policy in doubt lets nothing through",
        "shared/banksman/standing_policy.py",
        "        if self.doubt is not None:\n",
        "        if False:\n",
        (RULEBOOK,),
        vital=True,
    ),
    Defence(
        "a version that disappears brings no older one back",
        f"{WORKER}/rulebook.py",
        "            if found is None or found[0] < self._known:\n",
        "            if found is None:\n",
        (RULEBOOK,),
    ),
    Defence(
        "a rule that cannot be worked out ends the search",
        "shared/banksman/rules.py",
        "                return self._unclear(rule, error, call, people)\n",
        "                continue\n",
        (RULES,),
        vital=True,
    ),
    Defence(
        "a long list is not walked through",
        "shared/banksman/conditions.py",
        "        if self._walks and scene.is_long():\n",
        "        if False:\n",
        (f"{RULES}::test_a_long_list_is_not_walked_through",),
    ),
    Defence(
        "a path of an author's own tool is no path in the workspace",
        "shared/banksman/conditions.py",
        '        self._functions = _OWN if local else {**_OWN, "path_within": _elsewhere}\n',
        "        self._functions = _OWN\n",
        (RULES,),
    ),
    Defence(
        "an address with a user is read by nobody",
        "shared/banksman/spellings.py",
        '    if "@" in authority or "%" in authority:\n',
        '    if "%" in authority:\n',
        (SPELLINGS,),
    ),
    Defence(
        "an allowing rule names its tool",
        "shared/banksman/rule_file.py",
        '        if self.then == "allow" and not all(',
        "        if False and not all(",
        (RULES,),
    ),
    Defence(
        "a signature must hold",
        "shared/banksman/signing.py",
        "            key.verify(signed.signature, _domain(purpose) + signed.statement)\n",
        "            pass\n",
        (SIGNING,),
        vital=True,
    ),
    Defence(
        "a link's MAC must hold",
        "shared/banksman/links.py",
        "        if not hmac.compare_digest(expected, pointer.mac):\n",
        "        if False:\n",
        (f"{LINKS}::test_no_single_changed_character_leaves_a_link_valid",),
    ),
    Defence(
        "bytes in text have one spelling",
        "shared/banksman/signing.py",
        "if len(raw) != length or base64url(raw) != text:",
        "if len(raw) != length:",
        (f"{SIGNING}::test_bytes_have_one_spelling",),
    ),
    Defence(
        "a code is the notice's own",
        "shared/banksman/links.py",
        "                found |= hmac.compare_digest(",
        "                found |= bool(plain) or hmac.compare_digest(",
        (f"{LINKS}::test_a_code_of_another_notice_does_not_fit",),
    ),
    Defence(
        "a code is tried five times",
        f"{LEDGER}/notices.py",
        "WHERE id = %s AND code_tries < %s AND used_at",
        "WHERE id = %s AND %s > 0 AND used_at",
        (f"{LINKS}::test_after_five_wrong_codes_the_right_one_counts_no_more",),
    ),
    # Messages.
    Defence(
        "a message brings nothing but ids",
        "shared/banksman/wire.py",
        "    if found != json.loads(message(hint, message_id=name)):\n",
        "    if False:\n",
        (WIRE,),
    ),
    Defence(
        "a message is on its own queue",
        "shared/banksman/wire.py",
        "    if not isinstance(task, str) or QUEUES.get(task) != queue:\n",
        "    if not isinstance(task, str):\n",
        (WIRE,),
    ),
    Defence(
        "a task calls nothing afterwards",
        "shared/banksman/consumer.py",
        "if more or request.callbacks or request.errbacks or request.chain or request.chord:",
        "if more:",
        (f"{TASKS}::test_a_message_that_brings_something_to_call_afterwards_is_dropped",),
    ),
    Defence(
        "a message names a run and a segment",
        f"{WORKER}/tasks.py",
        "if _HEX.fullmatch(run) and 0 <= number < 2**31:",
        "if len(run) >= 0 and number == number:",
        (f"{TASKS}::test_a_message_of_another_form_is_refused",),
    ),
    # The walls in PostgreSQL.
    Defence(
        "a worker writes no decisions",
        SQL,
        "GRANT INSERT ON executions TO banksman_worker;",
        "GRANT INSERT ON executions, decisions, votes TO banksman_worker;",
        (f"{ROLES}::test_a_service_may_write_only_what_is_its_own",),
    ),
    Defence(
        "a gateway writes no executions",
        SQL,
        "GRANT INSERT ON revisions, votes, decisions, renewals TO banksman_gateway;",
        "GRANT INSERT ON revisions, votes, decisions, renewals, executions TO banksman_gateway;",
        (f"{ROLES}::test_a_service_may_write_only_what_is_its_own",),
    ),
    Defence(
        "votes are never changed",
        SQL,
        "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON votes EXECUTE FUNCTION refuse_change();\n",
        "",
        (f"{ROLES}::test_even_the_owner_is_stopped_at_the_append_only_tables",),
    ),
    Defence(
        "an attempt at a call is there once",
        SQL,
        "    PRIMARY KEY (run_id, step, call_id, attempt),\n",
        "",
        (f"{STARTS}::test_with_everything_in_place_a_call_starts_once",),
    ),
    Defence(
        "a worker changes no deadline",
        SQL,
        "GRANT UPDATE (state, settled_at, due_at) ON requests TO banksman_worker;",
        "GRANT UPDATE ON requests TO banksman_worker;",
        (f"{ROLES}::test_a_statement_over_the_wall_is_refused",),
    ),
    # Sweeps.
    Defence(
        "the sweep holds the run's row",
        f"{GATEWAY}/silence.py",
        "        runs.lock(conn, run_id)\n",
        "",
        (f"{ONCE}::test_the_sweep_waits_for_the_runs_row_before_it_touches_a_request",),
    ),
    Defence(
        "silence wakes the run",
        f"{GATEWAY}/silence.py",
        "    return runs.wake(conn, request.run_id, hint=here.hint)\n",
        "    return None\n",
        (f"{SWEEP}::test_silence_expires_the_request_and_the_run_goes_on",),
    ),
    Defence(
        "due notices are found by their index",
        f"{LEDGER}/notices.py",
        "due_at <= statement_timestamp()",
        "due_at <= clock_timestamp()",
        (FLAT,),
    ),
    Defence(
        "a settled request is mailed to nobody",
        f"{LEDGER}/notices.py",
        "requests.state = 'open' AND requests.revision",
        "requests.revision",
        ("tests/notifier/test_deliver.py::test_nobody_is_told_of_a_request_that_is_settled",),
    ),
    # Silence and people.
    Defence(
        "a deadline that extends allows nothing and voids no vote",
        f"{LEDGER}/requests.py",
        " AND requirement ->> 'on_expiry' IS DISTINCT FROM 'extend'",
        "",
        (f"{SILENCE}::test_a_vote_between_a_deadline_that_extends_and_the_sweep_counts",),
    ),
    Defence(
        "only a signature that holds is renewed",
        f"{GATEWAY}/silence.py",
        "            said = verifier.verify(decision.signed)\n",
        "            said = __import__('json').loads(decision.signed.statement)\n",
        (f"{SILENCE}::test_a_forged_approval_is_not_signed_again",),
    ),
    Defence(
        "a step is made once, whoever sweeps",
        f"{LEDGER}/silence.py",
        "WHERE id = %s AND state = 'open' AND due_at <= now",
        "WHERE id = %s AND state = 'open'",
        (f"{SILENCE}::test_two_gateways_that_sweep_at_once_double_no_message",),
    ),
    Defence(
        "who has voted is not reminded",
        f"{GATEWAY}/silence.py",
        "    left = [who for who in may if who.person.id not in spoken]\n",
        "    left = list(may)\n",
        (f"{SILENCE}::test_a_reminder_goes_to_who_may_decide_and_has_not_voted",),
    ),
    Defence(
        "who is newly given a group does not decide what waits",
        f"{GATEWAY}/stand_ins.py",
        "    return quorum.standing(person) - fresh\n",
        "    return quorum.standing(person)\n",
        (f"{PEOPLE}::test_who_is_newly_given_a_group_does_not_decide_what_waits_already",),
    ),
    Defence(
        "the last administrator stays",
        f"{LEDGER}/roster.py",
        "    if quorum.ADMINS in quorum.standing(person) and not others:\n",
        "    if False:\n",
        (f"{PEOPLE}::test_the_last_administrator_stays",),
    ),
    Defence(
        "another role ends the sessions",
        f"{LEDGER}/roster.py",
        "    if (after.roles, after.groups) != (before.roles, before.groups):\n",
        "    if False:\n",
        (f"{PEOPLE}::test_another_role_or_group_signs_somebody_out_and_another_name_does_not",),
    ),
    Defence(
        "only an administrator manages people and keys",
        f"{GATEWAY}/people.py",
        '    if person is None or "admin" not in person.roles:\n',
        "    if person is None:\n",
        (f"{PEOPLE}::test_nobody_but_an_administrator_changes_people_and_keys",),
        vital=True,
    ),
)
