"""y = 2 x, as a model of MLServer."""
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Double(MLModel):
    async def predict(self, payload):
        x = NumpyCodec.decode_input(payload.inputs[0])
        return InferenceResponse(id=payload.id, model_name=self.name, model_version=self.version, outputs=[NumpyCodec.encode_output("y", x * 2)])

    async def predict_stream(self, payloads):
        async for payload in payloads:
            yield await self.predict(payload)
