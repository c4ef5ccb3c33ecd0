"""Geometry: barycenters, interpolations, clusters and principal geodesics.

Each is arithmetic on vectors, decoded; or made by exact couplings; or the one, made better by a few of the other.
"""

from wembed.geometry.decoded import Decoded
from wembed.geometry.interpolations import interpolate
from wembed.geometry.means import Clusters, barycenter, class_means, kmeans
from wembed.geometry.principal import Geodesics, geodesic_pca

__all__ = ["Clusters", "Decoded", "Geodesics", "barycenter", "class_means", "geodesic_pca", "interpolate", "kmeans"]
