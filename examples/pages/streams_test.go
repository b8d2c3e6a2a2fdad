package pages

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"sallyport/examples/story/browser"
)

// refreshes counts the refreshed tokens at the provider.
func (h *house) refreshes() int {
	return strings.Count(h.provider.Output(), "tokens for pages: refresh_token")
}

// streamlit: the page works over a WebSocket, which lasts longer than an access token: the session is
// refreshed meanwhile. When Alice signs out of another page, it ends within seconds.
func (h *house) streamlit(t *testing.T, b *browser.Browser) {
	p := h.enter(t, b, "alice", "streamlit", "/", browser.Shows("Counted 0"))
	p.Do("who", browser.Shows("You are alice, alice@example.com, in ml,Data%20Science"))
	p.Do("counting", press("Count"), browser.Shows("Counted 1"))
	p.Do("counting on", press("Count"), browser.Shows("Counted 2"))
	p.Picture("streamlit")
	before := h.refreshes()
	p.Do("a count that goes on", press("Go on"), browser.Shows("Second 1"))
	p.Do("counting beyond the access token", browser.Shows("Second 15"))
	browser.Eventually(t, "the provider was asked for new tokens", func() bool { return h.refreshes() > before })
	p.Do("nothing was lost", browser.Shows("Counted 2"), browser.Waits(`!document.body.innerText.includes("Connecting")`))
	p.Quiet()

	other := p.Another()
	other.Do("TensorBoard without a form", chromedp.Navigate(h.at("tensorboard", "/.sallyport/sign-in?login=main&to=/")), board())
	h.signOut(other, "tensorboard")
	h.standsStill(t, p)
	p.Console()
	p.Do("the provider asks again", chromedp.Navigate(h.at("streamlit", "/")), form())
}

// standsStill waits until the count of Streamlit's page does not go on, and says how long that took.
func (h *house) standsStill(t *testing.T, p *browser.Tab) {
	t.Helper()
	const count = `Number(document.body.innerText.match(/Second (\d+)/)[1])`
	began := time.Now()
	last, since := browser.Eval[int](p, count), began
	browser.Eventually(t, "the WebSocket ended", func() bool {
		if now := browser.Eval[int](p, count); now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) > 3*time.Second
	})
	took := since.Sub(began)
	t.Logf("the WebSocket went on for %s after sign-out", took.Truncate(100*time.Millisecond))
	if took > 10*time.Second {
		t.Errorf("the WebSocket went on for %s", took)
	}
}

// kernel runs code in a kernel of Jupyter over a WebSocket of the page, and returns what it prints.
func kernel(code string) string {
	return fmt.Sprintf(`(async () => {
		const xsrf = document.cookie.match(/_xsrf=([^;]+)/)[1];
		const made = await (await fetch("/api/kernels", {method: "POST", headers: {"X-XSRFToken": xsrf}, body: "{}"})).json();
		const socket = new WebSocket("wss://" + location.host + "/api/kernels/" + made.id + "/channels");
		window.socket = socket;
		let said = "";
		return await new Promise((done, fail) => {
			socket.onerror = () => fail(new Error("the WebSocket failed"));
			socket.onclose = e => { window.socketEnded = e.code; };
			socket.onopen = () => socket.send(JSON.stringify({channel: "shell", parent_header: {}, metadata: {}, content: {code: %q, silent: false},
				header: {msg_id: "one", session: "page", username: "", date: new Date().toISOString(), msg_type: "execute_request", version: "5.3"}}));
			socket.onmessage = e => {
				const m = JSON.parse(e.data);
				if (m.msg_type === "execute_result") said += m.content.data["text/plain"];
				if (m.msg_type === "stream") said += m.content.text;
				if (m.msg_type === "error") said += m.content.evalue;
				if (m.msg_type === "status" && m.content.execution_state === "idle" && m.parent_header.msg_id === "one") done(said);
			};
		});
	})()`, code)
}

// jupyter: JupyterLab opens, knows Alice by the name that the gateway tells it, and runs code. Then the
// provider itself ends her session, by the back channel: the kernel's WebSocket is closed.
func (h *house) jupyter(t *testing.T, b *browser.Browser) {
	p := h.enter(t, b, "alice", "jupyter", "/lab", browser.Shows("Launcher"))
	p.Picture("jupyter")
	if a := p.Fetch("/api/me", "{}"); a.Status != 200 || !strings.Contains(a.Body, `"username": "alice"`) {
		t.Errorf("Jupyter knows alice as %+v", a)
	}
	if got := browser.Eval[string](p, kernel("1+1")); got != "2" {
		t.Errorf("1+1 is %q", got)
	}
	if a := p.Fetch("/api/me", `{headers: {"X-WEBAUTH-USER": "root"}}`); a.Status != 400 || !strings.Contains(a.Body, "protected_field") {
		t.Errorf("a page that says who calls: %+v", a)
	}
	p.Quiet("400")

	other := p.Another()
	other.Do("signing out at the provider", chromedp.Navigate(h.issuer+"/session/end"), chromedp.WaitVisible("button[name=logout]"))
	other.Do("signing out at the provider", chromedp.Click("button[name=logout]"), browser.Shows("Sign-out Success"))
	h.provider.Prints(t, "told pages that alice signed out")
	began := time.Now()
	p.Do("the WebSocket ends", browser.Waits("window.socketEnded"))
	t.Logf("the WebSocket was closed %s after the logout token", time.Since(began).Truncate(100*time.Millisecond))
	if _, status := p.Session(); status != 401 {
		t.Errorf("after the logout token the session is %d", status)
	}
	if !strings.Contains(h.gateway.Process.Output(), `"login_event":"ended"`) {
		t.Error("no record of the logout by the back channel")
	}
	p.Console()
	p.Do("the provider asks again", chromedp.Navigate(h.at("jupyter", "/lab")), form())
}
