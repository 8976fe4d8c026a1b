#!/bin/sh
# A `claude` for trees: plays the node that its task names from the file NODE in its working directory.
#
# The file's first line is the seconds to work, its second the result's tail: subtasks, or an answer. Resumed, it answers.
IFS= read -r initialize
IFS= read -r message
case " $*" in
    *" --resume="*)
        tail='"is_error":false,"result":"done","structured_output":{"answer":"done"}}'
        ;;
    *)
        node=${message#*node:}
        node=${node%%[!0-9]*}
        { IFS= read -r seconds; IFS= read -r tail; } <"$node"
        echo '{"type":"system","subtype":"init"}'
        sleep "$seconds"
        ;;
esac
echo '{"type":"result","subtype":"success","num_turns":1,"total_cost_usd":0.001,"usage":{},'"$tail"
