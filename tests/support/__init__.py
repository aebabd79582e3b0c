"""Helpers that tests share: servers, proxies, trees, archives and ways to run bakthat."""
