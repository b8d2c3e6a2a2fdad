package pages

import (
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"sallyport/examples/story/browser"
)

// execute sends the request on Swagger's page, and waits for the answer.
func execute() chromedp.Action[chromedp.Void] {
	return chromedp.Steps(
		chromedp.Click("button.execute"),
		chromedp.WaitVisible(".live-responses-table .response-col_status"),
	)
}

// docs: Bob reads /docs with his session, and may not ask the model. "Authorize" gets a token at the same
// issuer, by the code flow with PKCE in the page itself. With session and token both he is served.
func (h *house) docs(t *testing.T, b *browser.Browser) {
	p := h.enter(t, b, "bob", "api", "/docs", browser.Shows("/predict"))
	p.Picture("docs")
	p.Quiet()
	p.Do("opening the operation", chromedp.Click(".opblock-summary-control"), press("Try it out"), chromedp.SendKeys(`input[placeholder="months"]`, "30"),
		execute(), browser.Shows("insufficient_scope"))
	p.Picture("docs-refused")
	p.Quiet("403")

	p.Do("authorizing", chromedp.Click(".auth-wrapper .authorize"), chromedp.WaitVisible(".dialog-ux button.authorize"),
		chromedp.Click(".dialog-ux button.authorize"), browser.Shows("Logout"))
	p.Picture("docs-authorized")
	p.Do("closing the dialog", chromedp.Click(".dialog-ux button.btn-done"), press("Clear"), execute(), browser.Shows(`"asked_by"`))
	p.Picture("docs-served")
	p.Quiet()
	h.api.Take()
	token := browser.Eval[string](p, `ui.authSelectors.authorized().toJS().OAuth2AuthorizationCodeBearer.token.access_token`)
	a := p.Fetch("/predict?months=30", `{headers: {Authorization: "Bearer `+token+`"}}`)
	if a.Status != 200 || !strings.Contains(a.Body, `"asked_by":"bob"`) {
		t.Errorf("with session and token: %+v", a)
	}
	for _, x := range h.api.Take() {
		if strings.Contains(string(x.Request), token) || strings.Contains(string(x.Request), "sallyport=") {
			t.Errorf("the API got a credential: %.600q", x.Request)
		}
	}
	if a := p.Fetch("/predict?months=30", `{headers: {Authorization: "Bearer `+token[:len(token)-6]+`AAAAAA"}}`); a.Status != 401 {
		t.Errorf("with a session and a forged token: %+v", a)
	}
	if a := p.Fetch("/predict?months=30", "{}"); a.Status != 403 {
		t.Errorf("with the session alone: %+v", a)
	}
}
