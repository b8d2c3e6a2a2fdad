"""An API whose /docs gets its tokens from the gateway's issuer: ISSUER=URL uvicorn api:app"""
import os
from typing import Annotated

from fastapi import Depends, Header
from fastapi.openapi.docs import get_swagger_ui_html, get_swagger_ui_oauth2_redirect_html
from fastapi.security import OAuth2AuthorizationCodeBearer
from fastapi_offline import FastAPIOffline

issuer = os.environ.get("ISSUER", "https://localhost:9000")
scheme = OAuth2AuthorizationCodeBearer(
    authorizationUrl=f"{issuer}/auth", tokenUrl=f"{issuer}/token", scopes={"models.predict": "ask models"},
    auto_error=False,  # the gateway demands the credential, and keeps it
)
oauth = {"clientId": "docs", "usePkceWithAuthorizationCodeGrant": True, "scopes": "models.predict"}

# With Internet it is FastAPI(swagger_ui_init_oauth=oauth), which has /docs. FastAPIOffline brings the
# files of Swagger UI, and leaves out the options for OAuth.
app = FastAPIOffline(title="Churn", docs_url=None)


@app.get("/docs", include_in_schema=False)
def docs():
    return get_swagger_ui_html(
        openapi_url=app.openapi_url, title=app.title, init_oauth=oauth, oauth2_redirect_url="/docs/oauth2-redirect",
        swagger_js_url="/static-offline-docs/swagger-ui-bundle.js", swagger_css_url="/static-offline-docs/swagger-ui.css",
        swagger_favicon_url="/static-offline-docs/favicon.png",
    )


@app.get("/docs/oauth2-redirect", include_in_schema=False)
def oauth2_redirect():
    return get_swagger_ui_oauth2_redirect_html()


@app.get("/predict", dependencies=[Depends(scheme)])
def predict(months: int, x_webauth_user: Annotated[str, Header(include_in_schema=False)]) -> dict:
    return {"churn": months / 60, "asked_by": x_webauth_user}
