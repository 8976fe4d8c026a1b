"""What is redacted and what is left alone: lines as they stand in transcripts, and keys of every known form."""

import base64
import json
import random
import string

import pytest

from jobs.util.text import HIDDEN, redact, secrets_in

LEFT_ALONE = """
a basic understanding of sk-learn-extension
Basic understanding of the problem is enough.
It takes a basic knowledge of Kubernetes-networking and of basic-authentication.
Basic authentication sends user and password in every request.
basic training1234 and basic Requirements2024 are no credentials
The bearer of this letter, Michael Strogoff, travels to Irkutsk.
Bearer certificates2024 were issued to bearer shareholders.
Use the header Authorization: Bearer <token>.
curl -H "Authorization: Bearer $GITHUB_TOKEN" https://api.github.com/user
headers = {"Authorization": f"Bearer {token}"}
headers["Authorization"] = "Bearer " + os.environ["API_TOKEN"]
Authorization: none is needed for public repositories.
authorization: role-based-access-control
The authorization: required-before-publication rule stays.
x-api-key: required for every request
Set ANTHROPIC_API_KEY: without it nothing starts.
export ANTHROPIC_API_KEY=your-key-here
ANTHROPIC_API_KEY=${ANTHROPIC_API_KEY:?is not set}
CLAUDE_CODE_OAUTH_TOKEN is unset
pip install sk-learn scikit-learn sk-learn-contrib-gradient-boosting-machines
from sk_learn_extra.cluster import KMedoids
task-list, disk-usage, risk-averse, desk-research, flask-sqlalchemy, mask-rcnn
https://example.org/task-management-with-kanban-boards-for-everybody
sk-SK is the locale of Slovakia; sk-Latn-SK is its long form
The prefix of an OpenAI key is sk-, of an Anthropic key sk-ant-, of a project key sk-proj-.
Replace sk-ant-api03-... by your own key.
sk-proj-your-key-goes-here
ghp_, gho_ and ghs_ begin tokens of GitHub; github_pat_ begins the newer ones
def ghp_parse_the_header_of_a_packet_and_return_its_length(packet): ...
glpat- is GitLab's prefix, and glpat-your-personal-access-token-here a placeholder
npm_config_registry npm_lifecycle_event npm_package_dependencies_typescript_version
pypi-publish is an action, pypi-attestations-for-everybody-in-the-world a package
hf_hub_download hf_transfer hf_home
xoxo, your grandmother
sk_live_ and sk_test_ tell live from test mode at Stripe
sk_test_helper_for_the_payment_module(client)
The AKIA prefix marks a long-lived access key, ASIA one that expires.
ASIA PACIFIC REGIONAL OVERVIEW 2024
eyJ is how base64 spells the beginning of a JSON object.
cj1_ begins our own tokens
-----BEGIN CERTIFICATE-----
A file that starts with -----BEGIN RSA PRIVATE KEY----- must never be committed, says the guide.
openssl genrsa -out /etc/ssl/private/server-key-2024.pem 4096
secret_access_key = get_secret("production/database/read-only/access-key")
session_token: str | None = None
secret_access_key: RuleAwsSandboxesProxyAwsStaticConfigSecretAccessKey
next_token, max_tokens=4096, token_count: 128000, stop_token_id
The password is stored as a hash; passwords are never logged.
commit 4a30d9a6712b868197ea80855824829042a03aefc
sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
"integrity": "sha512-q0YHBqbUzMiWq1eTZ3Zr2xkd3Ff5vQ0kYxkq4k0eU3Yc9V2m3bZ8lW5n6J7pR1sT4uV8wX9yZ0aB2cD4eF6gHw=="
session 8b1f0a3e-1c2d-4e5f-8a9b-0c1d2e3f4a5b of job jyq4k343rdcmsea6e in batch bts6740cf2s7s3az9
d41d8cd98f00b204e9800998ecf8427e  /var/lib/dpkg/info/base-files.md5sums
data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==
R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7
/usr/lib/python3.11/site-packages/sklearn/linear_model/_logistic.py:1247
C:\\Users\\sk-admin\\AppData\\Roaming\\npm\\node_modules\\basic-auth\\index.js
https://github.com/scikit-learn-contrib/sklearn-extensions/blob/main/README.md#basic-usage
https://user@example.org/path and ssh://git@github.com:22/org/repo.git
http://localhost:8080/@scope/package and http://[::1]:9090/metrics?at=12:30@noon
postgres://$PGUSER:$PGPASSWORD@db/app and https://{user}:{password}@{host}/
git remote add origin git@github.com:org/task-scheduler-for-recursive-jobs.git
docker run --rm -e TOKEN -p 8080:80 registry.example.org:5000/team/image:2024.11@sha256:9f86d081884c7d65
AWS_REGION=eu-central-1 AWS_PROFILE=production AWS_ACCESS_KEY_ID is not set
arn:aws:iam::123456789012:role/service-role/basic-lambda-execution-role-v2
E   assert 'sk-learn' == 'scikit-learn'  # tests/unit/test_basic.py:12
error[E0277]: the trait bound `Token: Serialize` is not satisfied --> src/auth/bearer.rs:42:17
for (const [key, value] of Object.entries(headers)) { if (key === "authorization") continue; }
UPDATE users SET api_token = NULL, password = DEFAULT WHERE basic_plan_expires_at < '2024-11-30';
{"type":"tool_use","id":"toolu_01A09q90qw90lq917835lq9","name":"Bash","input":{"command":"ls -la"}}
{"id":"msg_01XFDUDYJgAACzvnptvVoYEL","model":"claude-sonnet-4-5-20250929","stop_reason":"end_turn"}
chatcmpl-9pZ0xWcN5vKqT1uY3eR7sD2fG4hJ and req_011CSHoEeqs5C35K2UUqR7Fy are ids of requests
Ein grundlegendes Verständnis: Basic-Kenntnisse genügen für sk-Übungen.
基本認証は Basic 認証とも呼ばれ、Bearer トークンとは異なります。
Базовое понимание: Bearer и Basic — это схемы, sk-learn — библиотека.
""".strip().splitlines()

_random = random.Random(20)
LETTERS = string.ascii_letters + string.digits
URL_SAFE = LETTERS + "_-"


def drawn(length: int, alphabet: str = LETTERS) -> str:
    """Return characters as an issuer would draw them; the last one is a letter or digit, as a word's is."""
    return "".join(_random.choices(alphabet, k=length - 1)) + _random.choice(LETTERS)


def base64_of(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def web_token() -> str:
    head, body = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
        for part in ({"alg": "HS256", "typ": "JWT"}, {"sub": "1234567890", "iat": 1516239022})
    )
    return f"{head}.{body}.{drawn(43, URL_SAFE)}"


# Made here and not written down: a scanner of the repository would take them for real ones.
KEYS = {
    "Anthropic's API": f"sk-ant-api03-{drawn(93, URL_SAFE)}AA",
    "Anthropic's OAuth": f"sk-ant-oat01-{drawn(86, URL_SAFE)}AA",
    "Anthropic's refresh": f"sk-ant-ort01-{drawn(86, URL_SAFE)}AA",
    "Anthropic's admin": f"sk-ant-admin01-{drawn(86, URL_SAFE)}AA",
    "OpenAI's project": f"sk-proj-{drawn(74, URL_SAFE)}T3BlbkFJ{drawn(74, URL_SAFE)}",
    "OpenAI's service": f"sk-svcacct-{drawn(74, URL_SAFE)}T3BlbkFJ{drawn(74, URL_SAFE)}",
    "OpenAI's older": f"sk-{drawn(20)}T3BlbkFJ{drawn(20)}",
    "OpenRouter's": f"sk-or-v1-{drawn(64, '0123456789abcdef')}",
    "DeepSeek's": f"sk-{drawn(31, '0123456789abcdef')}0",
    "ours": f"cj1_{drawn(32, URL_SAFE)}",
    **{f"GitHub's {kind}": f"gh{kind}_{drawn(36)}" for kind in "pousr"},
    "GitHub's fine-grained": f"github_pat_{drawn(22)}_{drawn(59)}",
    "GitHub's stateless": f"ghs_123456_{drawn(40)}.{drawn(60)}.{drawn(43)}",
    "GitLab's": f"glpat-{drawn(20, URL_SAFE)}",
    "GitLab's routable": f"glpat-{drawn(27, URL_SAFE)}.01.{drawn(9)}",
    "GitLab's runner": f"glrt-{drawn(20, URL_SAFE)}",
    "Slack's bot": f"xoxb-{drawn(12, string.digits)}-{drawn(13, string.digits)}-{drawn(24)}",
    "Slack's app": f"xapp-1-A{drawn(10)}-{drawn(13, string.digits)}-{drawn(64)}",
    "AWS' id": f"AKIA{drawn(15, string.ascii_uppercase)}Q",
    "AWS' temporary id": f"ASIA{drawn(15, string.ascii_uppercase)}7",
    "Bedrock's": f"ABSK{drawn(130, LETTERS + '+/')}==",
    "Vault's": f"hvs.{drawn(95, URL_SAFE)}",
    "SendGrid's": f"SG.{drawn(22, URL_SAFE)}.{drawn(43, URL_SAFE)}",
    "xAI's": f"xai-{drawn(80)}",
    "Groq's": f"gsk_{drawn(52)}",
    "Docker's": f"dckr_pat_{drawn(27)}",
    "DigitalOcean's": f"dop_v1_{drawn(64, '0123456789abcdef')}",
    "Google's API": f"AIza{drawn(35, URL_SAFE)}",
    "Google's OAuth": f"ya29.{drawn(100, URL_SAFE)}",
    "Google's client": f"GOCSPX-{drawn(28, URL_SAFE)}",
    "npm's": f"npm_{drawn(36)}",
    "PyPI's": f"pypi-AgEIcHlwaS5vcmc{drawn(120, URL_SAFE)}",
    "Hugging Face's": f"hf_{drawn(34)}",
    "Stripe's": f"sk_live_{drawn(24)}",
    "Stripe's restricted": f"rk_test_{drawn(99)}",
    "Stripe's webhook": f"whsec_{drawn(32)}",
    "a web token": web_token(),
}

AROUND = (
    "{}",
    "the key is {}.",
    "KEY={}\n",
    "({})",
    "'{}'",
    '{{"key":"{}"}}',
    "https://example.org/?key={}&page=2",
    "https://example.org/?q=a%3D{}",
    "first line\n{}\nlast line",
    json.dumps("first line\n{}\nlast line"),
    json.dumps(json.dumps("a\tb\t{}\r\n")),
    "\x1b[31m{}\x1b[0m",
    json.dumps("\x1b[1;31m{}\x1b[0m"),
    "前{}後",
)

CARRIED = {
    "basic": ("Authorization: Basic ", base64_of("user:a password")),
    "basic, alone": ("sent Basic ", base64_of("me:pass")),
    "bearer": ("Authorization: Bearer ", drawn(15) + "1"),
    "bearer in JSON": ('{"authorization": "Bearer ', drawn(24) + "1"),
    "bearer in JSON in JSON": (r"{\"Authorization\":\"Bearer ", drawn(24) + "1"),
    "bearer of a pair": ("setRequestHeader('Authorization', 'Bearer ", drawn(24) + "1"),
    "bearer, alone": ("rejected: Bearer ", drawn(31) + "1"),
    "GitHub's scheme": ("authorization: token ", drawn(39, "0123456789abcdef") + "1"),
    "no scheme": ("Authorization: ", drawn(31) + "1"),
    "x-api-key": ("x-api-key: ", drawn(20) + "1"),
    "a variable": ("export ANTHROPIC_AUTH_TOKEN=", drawn(20) + "1"),
    "AWS in a file": ("aws_secret_access_key = ", drawn(39, LETTERS + "/+") + "1"),
    "AWS in JSON": ('"SecretAccessKey": "', drawn(39, LETTERS + "/+") + "1"),
    "AWS in a variable": ("AWS_SESSION_TOKEN='", drawn(299, LETTERS + "/+") + "1"),
    "a URL": ("clone https://user:", drawn(12)),
    "a database": ("postgresql://app:", "p-wörd+%20!"),
}
AFTER = {"a URL": "@git.example.org/repo.git", "a database": "@[::1]:5432/app"}


def private_key(kind: str, head: str = "") -> str:
    lines = "\n".join(drawn(64, LETTERS + "+/") for _ in range(24))
    return f"-----BEGIN {kind}-----\n{head}{lines}\n{drawn(9)}==\n-----END {kind}-----"


PRIVATE_KEYS = {
    "PKCS 8": private_key("PRIVATE KEY"),
    "RSA": private_key("RSA PRIVATE KEY"),
    "OpenSSH": private_key("OPENSSH PRIVATE KEY"),
    "encrypted": private_key("EC PRIVATE KEY", "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,3F17F5316E2BAC89\n\n"),
    "PGP": private_key("PGP PRIVATE KEY BLOCK", "\n"),
}


@pytest.mark.parametrize("text", LEFT_ALONE)
def test_ordinary_words_are_not_redacted(text: str):
    assert redact(text) == text


def test_the_whole_text_at_once_is_not_redacted_either():
    text = "\n".join(LEFT_ALONE)
    assert redact(text) == text
    assert redact(json.dumps(text)) == json.dumps(text)
    assert redact(text.replace("\n", " ")) == text.replace("\n", " ")


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("issuer", KEYS)
def test_a_key_is_redacted_wherever_it_stands_and_nothing_else(issuer: str, around: str):
    template = around.replace("{{", "{").replace("}}", "}")
    text = redact(template.replace("{}", KEYS[issuer]))
    assert text == template.replace("{}", HIDDEN)
    assert redact(text) == text


@pytest.mark.parametrize("kind", CARRIED)
def test_a_secret_is_known_by_what_carries_it(kind: str):
    before, secret = CARRIED[kind]
    after = AFTER.get(kind, " and so on")
    text = redact(f"{before}{secret}{after}")
    assert text == f"{before}{HIDDEN}{after}"
    assert redact(text) == text


@pytest.mark.parametrize("kind", PRIVATE_KEYS)
@pytest.mark.parametrize("before", ["{:6}\t", "{:6}→", "{}:", "> ", "+", "  "])
def test_a_private_key_is_redacted_where_a_tool_shows_its_lines_with_marks(kind: str, before: str):
    lines = PRIVATE_KEYS[kind].split("\n")
    shown = "\n".join(f"{before.format(number)}{line}" for number, line in enumerate(lines, 1))
    for text in (shown, json.dumps(shown, ensure_ascii=False), shown.replace("\n", " ").replace("\t", " ")):
        hidden = redact(text)
        assert not [line for line in lines[-4:] if line in hidden], hidden
        assert len(hidden) < 40


@pytest.mark.parametrize("kind", PRIVATE_KEYS)
@pytest.mark.parametrize("form", ["as it is", "on one line", "in JSON"])
def test_a_private_key_is_redacted_to_its_end(kind: str, form: str):
    text = f"before\n{PRIVATE_KEYS[kind]}\nand after"
    shown = {"as it is": text, "on one line": text.replace("\n", " "), "in JSON": json.dumps(text)}[form]
    expected = shown.replace(
        {"on one line": PRIVATE_KEYS[kind].replace("\n", " "), "in JSON": json.dumps(PRIVATE_KEYS[kind])[1:-1]}.get(
            form, PRIVATE_KEYS[kind]
        ),
        HIDDEN,
    )
    assert redact(shown) == expected
    lines = PRIVATE_KEYS[kind].split("\n")
    assert not any(line in redact("\n".join(lines[:-3])) for line in lines[4:])


@pytest.mark.parametrize("value", ['p"ss\\word12', "line1-abc\nline2-def", "tab\tpassword1", "pässwörd-1"])
@pytest.mark.parametrize("name", ["DB_PASSWORD", "AWS_BEARER_TOKEN_BEDROCK", "AZURE_STORAGE_CONNECTION_STRING"])
def test_a_value_that_is_known_is_redacted_in_json_too(name: str, value: str):
    known = secrets_in({name: value})
    for text in (value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]):
        assert redact(f"a {text} b", known) == f"a {HIDDEN} b"


def test_a_value_that_is_known_is_redacted_whatever_its_form():
    environment = {
        "COMPANY_API_KEY": "correct-horse-battery",
        "OTHER_TOKEN": "correct-horse-battery-staple",
        "DB_PASSWORD": "hunter2hunter2",
        "CLAUDE_CODE_CLIENT_KEY_PASSPHRASE": "opens-the-client-key",
        "WORD_TOKEN": "understanding",
        "SHORT_SECRET": "abc1",
        "NUMBER_KEY": "20241130",
        "SSH_KEY": "/home/me/.ssh/id_ed25519",
        "PATH": "/usr/local/bin:/usr/bin",
        "MAX_TOKENS": "8192 or more",
    }
    known = secrets_in(environment)
    assert known == {
        *("correct-horse-battery", "correct-horse-battery-staple", "hunter2hunter2", "opens-the-client-key")
    }
    text = "correct-horse-battery-staple, correct-horse-battery, hunter2hunter2 and a basic understanding"
    assert redact(text, known) == f"{HIDDEN}, {HIDDEN}, {HIDDEN} and a basic understanding"
