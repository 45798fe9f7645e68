import base64
import io

from native_client.api.media import list_media, upload_media
from native_client.models import MediaResponse, UploadMediaBody
from native_client.types import File

from native.session import Session

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def run(session: Session) -> None:
    file = File(payload=io.BytesIO(PIXEL), file_name="pixel.png", mime_type="image/png")
    image = upload_media.sync(client=session.client, body=UploadMediaBody(file=file, alt="A pixel"))
    assert isinstance(image, MediaResponse), image
    images = list_media.sync(client=session.client, limit=1)
    assert isinstance(images, list), images
    assert [each.url for each in images] == [image.url]
