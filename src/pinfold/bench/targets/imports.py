"""A program to be measured: the start of a Python program that imports a lot."""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures
import csv
import ctypes
import decimal
import difflib
import email.message
import http.client
import json
import logging.config
import multiprocessing
import sqlite3
import sys
import tarfile
import tomllib
import unittest
import urllib.request
import xml.dom.minidom
import zipfile

_USED = (
    *(argparse, asyncio, concurrent.futures, csv, ctypes, decimal, difflib, email.message),
    *(http.client, json, logging.config, multiprocessing, sqlite3, tarfile, tomllib, unittest),
    *(urllib.request, xml.dom.minidom, zipfile),
)

if __name__ == "__main__":
    sys.stdout.write(f"{len(_USED)} of {len(sys.modules)}\n")
