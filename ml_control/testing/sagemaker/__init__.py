"""A stateful test double of SageMaker that speaks its real API over HTTP.

    with FakeSageMaker(s3="http://127.0.0.1:5000", speed=1000) as fake:
        sagemaker = boto3.client("sagemaker", endpoint_url=fake.url)

Training jobs really train, endpoints really load their archive as the container would and
really serve. ``docs/fake-sagemaker.md`` says what is as in AWS and what is not.
"""

from ml_control.testing.sagemaker.director import Director
from ml_control.testing.sagemaker.fake import FakeSageMaker
from ml_control.testing.sagemaker.state import Times

__all__ = ["Director", "FakeSageMaker", "Times"]
