"""What is done with a request, as plain functions over ports: the gateway calls them, and AWS
Lambda. They import neither numpy nor pandas nor xgboost, so that a cold start is short.
"""
