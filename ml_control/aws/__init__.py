"""The platform on AWS: each module beside one of the same name under ``local``.

boto3 and sagemaker-core come with the extra ``aws`` and are imported inside functions.
"""
