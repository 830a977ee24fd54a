"""`python -m nas.proxy_check`: does a proxy rank networks as longer training does?"""
