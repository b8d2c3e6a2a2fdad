"""An API whose /docs gets its tokens from the gateway's issuer: ISSUER=URL uvicorn api:app"""
import os
from typing import Annotated

from fastapi import Depends, Header
from fastapi.security import OAuth2AuthorizationCodeBearer
from fastapi_offline import FastAPIOffline

issuer = os.environ.get("ISSUER", "https://localhost:9000")
scheme = OAuth2AuthorizationCodeBearer(
    authorizationUrl=f"{issuer}/auth", tokenUrl=f"{issuer}/token", scopes={"models.predict": "ask models"},
    auto_error=False,  # the gateway demands the credential, and keeps it
)
app = FastAPIOffline(
    title="Churn",
    swagger_ui_init_oauth={"clientId": "docs", "usePkceWithAuthorizationCodeGrant": True, "scopes": "models.predict"},
)


@app.get("/predict", dependencies=[Depends(scheme)])
def predict(months: int, x_webauth_user: Annotated[str, Header(include_in_schema=False)]) -> dict:
    return {"churn": months / 60, "asked_by": x_webauth_user}
