package pages

// words are what a refusal tells a person. They may have {service}, {host}, {caller} and {wait} inside.
type words struct {
	heading string
	text    string // what happened
	who     string // instead of text if somebody is signed in; "" for text and who that is
	next    string // what to do
}

const (
	signInNext  = "Sign in to go on."
	tellNext    = "If this goes on, tell whoever runs {service}, and give them the number below."
	waitNext    = "Wait {wait}, and then try again. " + tellNext
	beginNext   = "Go back, and begin again at the first page. " + tellNext
	askNext     = "Ask whoever runs {service}, and give them the number below."
	smallerNext = "Send less at once. To learn how much is taken, ask whoever runs {service}, and give them the number below."
)

// forPrograms are the words where a credential is missing or refused, and nobody can sign in.
func forPrograms() words {
	return words{
		heading: "You cannot sign in here",
		text:    "This part of {service} is for programs, which prove who they are in another way.",
		next:    "Check the address. If you should be able to open this in a browser, ask whoever runs {service}, and give them the number below.",
	}
}

// wordsOf returns the words for a reason. known is false for those that the gateway does not have.
func wordsOf(reason string) (w words, known bool) {
	for _, of := range [...]func(string) (words, bool){wordsOfSignIn, wordsOfRights, wordsOfService, wordsOfRequest} {
		if w, known := of(reason); known {
			return w, true
		}
	}
	return words{heading: "This did not work", text: "{service} did not do what was asked.", next: waitNext}, false
}

// wordsOfSignIn returns the words for logins and credentials.
func wordsOfSignIn(reason string) (words, bool) {
	switch reason {
	case "no_credential":
		return words{heading: "Please sign in", text: "You are not signed in.", next: signInNext}, true
	case "session_expired", "credential_expired_in_stream":
		return words{heading: "Please sign in again", text: "Your session has ended, because it was not used for a while or has lasted as long as it may.", next: signInNext}, true
	case "session_ended":
		return words{heading: "Please sign in again", text: "You have signed out, perhaps in another window, or the sign-in service has ended your session.", next: signInNext}, true
	case "session_unsaved":
		return words{heading: "You are signed out here", text: "But {service} could not write that down, so a copy of your session might open again after a restart.", next: tellNext}, true
	case "step_up":
		return words{heading: "Please sign in once more", text: "This page wants a stronger or more recent sign-in than yours.", next: signInNext}, true
	case "bad_session":
		return words{heading: "Please sign in again", text: "Your session cannot be used here.", next: signInNext}, true
	case "login_state":
		return words{heading: "Signing in did not work", text: "The sign-in was begun in another browser, took longer than ten minutes, or has been finished already.", next: "Sign in again."}, true
	case "login_expired":
		return words{heading: "Signing in took too long", text: "For your safety, there are ten minutes for it.", next: "Sign in again."}, true
	case "login_issuer":
		return words{heading: "Signing in did not work", text: "The answer came from another sign-in service than the one that you were sent to.", next: "Sign in again. " + tellNext}, true
	case "login_refused":
		return words{heading: "Signing in did not work", text: "The sign-in service did not let you in.", next: "Sign in again, perhaps with another account. If you should have access, ask whoever runs {service}, and give them the number below."}, true
	case "login_token":
		return words{heading: "Signing in did not work", text: "The sign-in service did not say in a valid way who you are.", next: "Sign in again. " + tellNext}, true
	case "login_acr":
		return words{heading: "A stronger sign-in is needed", text: "You have signed in, but not in the way that {service} demands, or too long ago. It may demand a second step, such as a code from your phone.", next: "Sign in again. " + tellNext}, true
	case "login_unavailable":
		return words{heading: "You cannot sign in now", text: "The sign-in service does not answer {service}, or not as it should. You did nothing wrong.", next: "Wait {wait}, and then sign in again. " + tellNext}, true
	case "issuer_unavailable", "basic_busy":
		return words{heading: "Please try again later", text: "It cannot be checked now who you are. You did nothing wrong.", next: waitNext}, true
	case "session_too_large":
		return words{heading: "You cannot be signed in", text: "The sign-in service says more about you than a browser can keep.", next: "Trying again does not help. " + askNext}, true
	case "too_many_failures":
		return words{heading: "Too many failed attempts", text: "From your network, too many attempts to sign in or to call failed.", next: waitNext}, true
	case "revoked":
		return words{heading: "Your access was withdrawn", text: "{service} no longer accepts what proves who you are.", next: askNext}, true
	case "certificate_missing", "certificate_expired", "certificate_not_yet_valid", "certificate_unknown_ca", "certificate_wrong_usage", "certificate_chain",
		"certificate_revoked", "certificate_revocation_unknown", "certificate_name":
		return words{heading: "A certificate is needed", text: "Your browser showed no certificate, or one that is not accepted here.", next: "Close all windows of the browser, open this page again, and choose your certificate when you are asked. " + tellNext}, true
	case "bad_credential", "token_expired", "token_not_yet_valid", "token_inactive", "token_lifetime", "token_bound", "wrong_audience", "missing_claim", "unlisted_credential",
		"proofs_differ", "api_key_unknown", "api_key_expired", "basic_unknown", "basic_ended", "bad_signature", "signature_missing", "malformed", "coverage", "stale", "future",
		"replayed", "key_expired", "key_not_yet_valid":
		return words{heading: "Please sign in", text: "What your browser sent to prove who you are is not accepted here.", next: signInNext}, true
	}
	return words{}, false
}

// wordsOfRights returns the words for what a person may not do.
func wordsOfRights(reason string) (words, bool) {
	switch reason {
	case "forbidden", "insufficient_scope", "withdrawn_in_stream":
		return words{heading: "You may not do this", text: "This is not open to you.", who: "You are signed in as {caller}, who may not do this.", next: askNext}, true
	case "address_not_allowed":
		return words{heading: "Not from this network", text: "{service} cannot be opened from the network that you are on.", next: "Use the network of your organisation, or its VPN. If you should have access from here, ask whoever runs {service}, and give them the number below."}, true
	case "fetched_ahead":
		return words{heading: "Please open this page again", text: "Your browser fetched it before you opened it.", next: signInNext}, true
	case "cross_site", "origin_not_allowed":
		return words{heading: "Another website asked for this", text: "It was stopped, because another website may have asked for it without your knowledge.", next: "If you want to do it, open {service} yourself, and do it there."}, true
	case "plain_http":
		return words{heading: "This connection is not private", text: "Your browser sent what proves who you are without encryption, so others could have read it.", next: "Use the address that begins with https. Then tell whoever runs {service}, and give them the number below."}, true
	case "upgrade_not_allowed", "subprotocol_missing", "not_for_another_proxy", "request_not_told":
		return words{heading: "This is not set up", text: "{service} is not set up to be used in this way.", next: askNext}, true
	}
	return words{}, false
}

// wordsOfService returns the words for what does not work, or has no room.
func wordsOfService(reason string) (words, bool) {
	switch reason {
	case "rate_limited", "too_many_in_flight":
		return words{heading: "Too many requests", text: "You, or others who share your account or network, asked for too much at once.", next: waitNext}, true
	case "overloaded", "body_memory", "audit_unavailable", "replay_full", "replay_window":
		return words{heading: "Please try again later", text: "{service} has no room for your request now. You did nothing wrong.", next: waitNext}, true
	case "shutdown", "configuration_replaced", "client_gone":
		return words{heading: "Please try again", text: "The connection was closed, because {service} is being changed or started again.", next: waitNext}, true
	case "upstream_refused", "upstream_reset", "no_healthy_upstream":
		return words{heading: "This is not available now", text: "A part of {service} does not run. You did nothing wrong.", next: waitNext}, true
	case "upstream_timeout":
		return words{heading: "This takes too long", text: "{service} did not answer in time. It may be busy, or you may have asked for much.", next: waitNext}, true
	case "upstream_garbage", "upstream_signature", "upstream_credential_unavailable", "upstream_credential_refused", "protocol_not_served", "internal":
		return words{heading: "Something went wrong", text: "A part of {service} does not work as it should. You did nothing wrong.", next: waitNext}, true
	}
	return words{}, false
}

// wordsOfRequest returns the words for what cannot be answered as it was asked.
func wordsOfRequest(reason string) (words, bool) {
	switch reason {
	case "no_route", "unknown_call":
		return words{heading: "There is no such page", text: "Nothing is at this address.", next: "Check the address. If a link on {service} led you here, tell whoever runs it, and give them the number below."}, true
	case "method_not_allowed", "bad_method":
		return words{heading: "This cannot be done here", text: "This address does not do what was asked of it.", next: beginNext}, true
	case "body_too_large", "batch_too_large", "tensor_too_large":
		return words{heading: "This is too large", text: "You sent more than {service} takes.", next: smallerNext}, true
	case "head_too_large":
		return words{heading: "Your browser sent too much", text: "It sends along what pages of {host} have stored in it, and that has become too much.", next: "Delete the cookies of {host} in your browser, and then try again."}, true
	case "target_too_long":
		return words{heading: "This address is too long", text: "It has more in it than {service} takes.", next: beginNext}, true
	case "head_timeout", "body_timeout":
		return words{heading: "Sending took too long", text: "What you sent did not arrive in time.", next: "Check your connection, and then try again. " + tellNext}, true
	case "code_in_body", "unread_encoding":
		return words{heading: "This kind of file is not taken", text: "{service} does not take what you sent in this form, because it could do harm or cannot be read.", next: "Send it in another form. To learn which is taken, ask whoever runs {service}, and give them the number below."}, true
	case "misdirected", "authority":
		return words{heading: "Please open this page again", text: "Your browser used a connection that is meant for another site.", next: "Close all windows of the browser, and open this page again. " + tellNext}, true
	case "bad_body", "bad_model", "bad_model_name", "version_needed", "uncounted_body", "digest_missing", "digest_mismatch", "logout_token":
		return words{heading: "This cannot be answered", text: "What was sent is incomplete, or not in the form that {service} takes.", next: beginNext}, true
	case "ambiguous_path", "bad_authority", "bad_expectation", "bad_field", "bad_framing", "bad_grpc_call", "bad_syntax", "bad_target", "bad_version", "protected_field",
		"unknown_transfer_coding", "upgrade_not_get", "upgrade_with_body":
		return words{heading: "This cannot be answered", text: "Your browser, or something between it and {service}, sent what cannot be understood.", next: beginNext}, true
	}
	return words{}, false
}
