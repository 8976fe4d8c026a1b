"""What the engine keeps of a hello."""

from server.client.wire import Hello
from server.mcp.connection_state import caller_of


def test_nothing_of_the_clients_own_session_is_kept_whatever_it_sends():
    env = {
        "PATH": "/bin",
        "GH_TOKEN": "named",
        "CLAUDECODE": "1",
        "CLAUDE_JOBS_TOKEN": "x",
        "CLAUDE_CODE_MESSAGING_TOKEN": "x",
    }

    client_context = caller_of(Hello(cwd="/w", env=env, umask=0o027)).client_context

    assert (client_context.env, client_context.umask) == ({"PATH": "/bin", "GH_TOKEN": "named"}, 0o027)
