"""The cube: every scene, composite and label of a project, on one grid and in one history.

``repository`` opens it, ``layout`` says how arrays lie in it, ``collection`` reads them;
``ingest``, ``statistics``, ``composite`` and ``labels`` each add something in one commit.
"""
