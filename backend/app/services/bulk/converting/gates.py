"""Parts of WordPress's posts that plugins show to some readers only."""

import re

from app.services.bulk.visibility import is_gate

_GATES = re.compile(
    r"<!--\s*wp:(?:jetpack/paywall|premium-content/|jetpack/paid-content|pmpro/|memberful/"
    r"|restrict-content-pro/|woocommerce-memberships/)"
    r"|\[(?:restrict|private|members?[_-]?only|memberonly|is_paid|membership|pmpro_membership|rcp_"
    r"|mepr[_-]|wcm_restrict|wlm_|ihc-|um_loggedin|loggedin|members_access|membership_area|s2if"
    r"|content_protector|passster|protected|memberful)"
    r"|\"um_is_restrict\":\s*true|\"contentControls\":\s*\{\"enabled\":\s*true"
    r"|\"blockVisibility\":\s*false|\"hideBlock\":\s*true|\"visibilityByRole\":\s*\"(?!public)",
    re.IGNORECASE,
)
"""Blocks and shortcodes of plugins that show text to some readers only, and hidden blocks."""
_ENDS = re.compile(r"<!--\s*+/wp:([a-z0-9_/-]++)|\[/([A-Za-z][\w-]*+)\]")
_GATE_NAMES = {
    "access", "am4show", "content_control", "emaillocker", "erphpdown", "et_bloom_locked", "hidden",
    "hide", "hidepost", "ihide", "login", "loginview", "mm_access_decision", "pay", "ppwp", "reply",
    "reply_view", "replyview", "signinlocker", "sociallocker", "um_show_content", "vip", "wppay",
}  # fmt: skip
"""Shortcodes around text that only readers see who have logged in, paid or commented."""


def find_gate(content: str) -> str:
    """Return a block or shortcode that hides a part of a post, or an empty string."""
    if gate := _GATES.search(content):
        shown = gate[0].removeprefix("<!--").strip().removeprefix("wp:").strip('[/"')
        return shown.partition('"')[0]
    for end in _ENDS.finditer(content):
        name = (end[1] or end[2]).lower()
        if is_gate(name) or name in _GATE_NAMES:
            return name
    return ""
