#!/bin/sh
# A `claude` that starts in about a millisecond: reads the two lines of its stdin and answers as the CLI does.
#
# Directives inside the task's text, each ending at a blank, a quotation mark or a backslash:
#   stub:sleep=S    wait S seconds before the answer      stub:exit=N     exit with N and no result
#   stub:cost=USD   the answer's cost                     stub:say=WORD   the answer's text
#   stub:ledger=F   append "session begin" and "session end" to the file F
#   stub:wait=F     wait until the file F exists, two minutes at most
#   stub:replay=F   say what the file F holds, wait where it is told to, and say nothing else
IFS= read -r initialize
IFS= read -r message

# Sets `value` to what follows "stub:NAME=" in the message, or to the default.
directive() {
    value=$2
    case $message in
        *"stub:$1="*)
            value=${message#*"stub:$1="}
            value=${value%%[\ \"\\]*}
            ;;
    esac
}

session=00000000-0000-4000-8000-000000000000
for argument; do
    case $argument in
        --session-id=*) session=${argument#*=} ;;
        --resume=*) session=${argument#*=} ;;
    esac
done

directive ledger ""; ledger=$value
directive sleep 0; pause=$value
directive exit ""; code=$value
directive cost 0.001; cost=$value
directive say done; answer=$value
directive wait ""; awaited=$value
directive replay ""; replayed=$value
# Bounded, so that a test that dies leaves nothing for good.
wait_for_file() {
    turns=0
    while [ -n "$awaited" ] && ! [ -e "$awaited" ] && [ "$turns" -lt 2400 ]; do turns=$((turns + 1)); sleep 0.05; done
}

[ -n "$replayed" ] && { cat "$replayed"; wait_for_file; exit 0; }

echo '{"type":"system","subtype":"init","session_id":"'"$session"'","model":"stub","tools":[],"mcp_servers":[],"claude_code_version":"2.1.330"}'
# The model's answer begins: from here on there is something to resume.
echo '{"type":"stream_event","event":{"type":"message_start","message":{"id":"m1","model":"stub","usage":{"input_tokens":0,"output_tokens":0}}},"session_id":"'"$session"'"}'
[ -n "$ledger" ] && echo "$session begin" >>"$ledger"
[ "$pause" != 0 ] && sleep "$pause"
wait_for_file
[ -n "$code" ] && exit "$code"
echo '{"type":"assistant","message":{"role":"assistant","model":"stub","content":[{"type":"text","text":"'"$answer"'"}]},"session_id":"'"$session"'"}'
[ -n "$ledger" ] && echo "$session end" >>"$ledger"
echo '{"type":"result","subtype":"success","is_error":false,"result":"'"$answer"'","num_turns":1,"session_id":"'"$session"'","total_cost_usd":'"$cost"',"usage":{"input_tokens":10,"output_tokens":20},"permission_denials":[],"terminal_reason":"completed","stop_reason":"end_turn","result_index":0}'
exit 0
